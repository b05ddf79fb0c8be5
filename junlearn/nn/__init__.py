"""Flax modules for experiments and tests; no unlearning in here."""

from junlearn.nn.mlp import MLP as MLP
from junlearn.nn.vision.cnn import CNN as CNN
from junlearn.nn.vision.resnet import ResNet as ResNet
from junlearn.nn.vision.resnet import ResNet18 as ResNet18
