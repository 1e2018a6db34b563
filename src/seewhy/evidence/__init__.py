"""What methods need, one file for each mechanism: recorded in a forward, or found by asking the model again.

A file of this folder enters its providers with `provides`; nothing else has to be edited for a new need.
"""

from seewhy.evidence._companions import see_each_other
from seewhy.evidence._forward import Forward, Gradients, Plan, Settings, at_least_float32
from seewhy.evidence._meaning import Doubt, doubts
from seewhy.evidence._prompt import Question, logits, question
from seewhy.evidence._provider import Provider, provides
from seewhy.evidence._recorder import Recorder
from seewhy.evidence._request import Request, requests
from seewhy.evidence._share import shares

__all__ = [
    "Doubt",
    "Forward",
    "Gradients",
    "Plan",
    "Provider",
    "Question",
    "Recorder",
    "Request",
    "Settings",
    "at_least_float32",
    "doubts",
    "logits",
    "provides",
    "question",
    "requests",
    "see_each_other",
    "shares",
]
