"""Take part in trainings, or steer them, from a program of your own."""

from folkmoot.client.hub import Hub, Notification
from folkmoot.client.participant import Participant
from folkmoot.client.prediction import Prediction
from folkmoot.client.task import Declined, Task

__all__ = ["Declined", "Hub", "Notification", "Participant", "Prediction", "Task"]
