"""Flax modules for experiments and tests; no unlearning in here."""

from junlearn.nn.cnn import CNN as CNN
from junlearn.nn.mlp import MLP as MLP
from junlearn.nn.resnet import ResNet as ResNet
from junlearn.nn.resnet import ResNet18 as ResNet18
