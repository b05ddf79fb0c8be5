"""The methods that are compared, each with a learning rate for Adam."""

from junlearn.methods import finetune, grad_difference, retrain

TRAINING = (retrain.transform, 3e-3)
# Chosen by the distance to retraining on seeds 100 to 111, at 60 steps.
METHODS = {
  "finetune": (finetune.transform, 0.01),
  "grad_difference": (grad_difference.transform, 3e-3),
}
