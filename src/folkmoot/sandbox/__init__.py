"""Models at work, in processes that can do nothing but compute. Nothing else in Folkmoot ever loads a model."""

from folkmoot.sandbox.architectures import architecture_names
from folkmoot.sandbox.confinement import Protection, protections
from folkmoot.sandbox.limits import SandboxLimits
from folkmoot.sandbox.model import ModelPart, Sampling, SandboxModel
from folkmoot.sandbox.sandbox import Sandbox

__all__ = [
    "ModelPart",
    "Protection",
    "Sampling",
    "Sandbox",
    "SandboxLimits",
    "SandboxModel",
    "architecture_names",
    "protections",
]
