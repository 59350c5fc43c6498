"""The process from which those that load a model are forked: it has imported everything, and loads none itself.

`python -m folkmoot.sandbox.warm_parent` takes its orders on the line whose descriptor is its argument. It reaps a
child only when told to, so that nobody else can get the number of one that the server is about to kill.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import sys
from collections.abc import Iterable

from folkmoot.sandbox import architectures
from folkmoot.sandbox.child import run_child
from folkmoot.sandbox.limits import ChildSettings
from folkmoot.sandbox.warming import warm_up
from folkmoot.sandbox.wire import Channel, Gone


def main(descriptor: int) -> None:
    channel = Channel(socket.socket(fileno=descriptor), takes_descriptors=True)
    settings = ChildSettings.from_fields(channel.receive().fields)
    architectures.import_all()
    _import_classes(settings.torch_classes)
    warm_up()
    # What is here now stays: a collection in a child would only copy the pages that it shares with us.
    gc.collect()
    gc.freeze()
    channel.send({"ready": True})
    with contextlib.suppress(Gone):
        while True:
            _obey(channel, settings)


def _obey(channel: Channel, settings: ChildSettings) -> None:
    match channel.receive():
        case ({"order": "fork"}, _, int(line)):
            channel.send({"pid": _fork(line, settings)})
            os.close(line)
        case ({"order": "reap", "pid": int(pid)}, _, _):
            channel.send({"status": os.waitpid(pid, 0)[1]})


def _fork(line: int, settings: ChildSettings) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            run_child(line, settings, parent)
        finally:
            os._exit(1)
    return pid


def _import_classes(classes: Iterable[str]) -> None:
    """Import the operator's own classes; a confined process can import nothing any more."""
    for name in classes:
        # One that is missing costs only the models that name it.
        with contextlib.suppress(Exception):
            importlib.import_module(name.rpartition(".")[0])


if __name__ == "__main__":
    main(int(sys.argv[1]))
