"""The conversion of Cao et al. (2015): weights are copied as they are, and no threshold is balanced.

Source: Y. Cao, Y. Chen, D. Khosla, "Spiking deep convolutional neural networks for energy-efficient object
recognition", IJCV 113. A ReLU network without biases, with average pooling, is trained on inputs that are not negative
(an `ann` row with ``architecture: cao5``, ``coding: unsigned``). Each ReLU becomes an integrate-and-fire neuron:

    u[t] = u[t - 1] + W s[t],    a spike and u[t] = 0 where u[t] > 1

without leak and without normalisation of weights. So a rate saturates at 1 where the activation is larger, and the
reset to zero loses what is above the threshold: the method's own loss, which is left as it comes out.

The input is Poisson spikes with the pixels' values as rates. The source counts output spikes; here the output neurons
accumulate their current, as in all methods of this suite. The source's filters are 5 x 5 on crops of 24 x 24; here they
are 3 x 3 on whole images. Widths are not known to the author of this file, and were chosen.
"""

from collections.abc import Mapping

from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained
from bntt.methods._balancing import classifier_of, copied

TITLE = "ANN-SNN conversion, no normalisation"
NEEDS_START = True
SEEDED = False
EXTENDS = ["bntt.data.images", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "time_steps": {"default": 400, "min": 1, "help": "Number of time-steps T of inference."},
    "coding": {
        "default": "unsigned",
        "choices": ["signed", "unsigned"],
        "help": "Poisson spikes of pixels in [0, 1] (`unsigned`, as published), or of z-scored pixels, with a sign "
        "(`signed`).",
    },
}
NEURON = {"reset": "hard"}


def train(task: Task) -> Trained:
    """Copy the weights; nothing is trained. Raises UserError if the start row has norms, biases or other shapes."""
    network = copied(task, task.options | NEURON)
    return Trained(network.state_dict(), facts={"parameters": sum(p.numel() for p in network.parameters())})


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The copied network as a classifier."""
    return classifier_of(dict(run.options) | NEURON, data, weights)
