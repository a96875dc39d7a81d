"""A visitor of the dashboard without a browser: the page's own websocket, spoken in Streamlit's own messages.

It does what a browser does to a server, and costs the machine almost nothing itself: it asks for the page, reruns it,
and keeps the timers of live fragments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

__all__ = ["Visitor", "visiting"]


@dataclass
class Visitor:
    """One open page. `query` is its URL's query string, `page` its path, empty for the first page."""

    socket: ClientConnection
    query: str = ""
    page: str = ""
    timers: dict[str, float] = field(default_factory=dict)
    """The interval, in seconds, of every fragment that wants to be drawn again."""

    def rerun(self, fragment: str = "") -> None:
        """Run the page, or one fragment of it, and wait until the server has finished.

        Raises:
            RuntimeError: the page raised.
        """
        request = BackMsg()
        request.rerun_script.query_string = self.query
        request.rerun_script.page_name = self.page
        request.rerun_script.fragment_id = fragment
        if not fragment:
            self.timers.clear()
        self.socket.send(request.SerializeToString())
        while True:
            message = ForwardMsg()
            message.ParseFromString(self.socket.recv(timeout=60, decode=False))
            match message.WhichOneof("type"):
                case "auto_rerun":
                    self.timers[message.auto_rerun.fragment_id] = message.auto_rerun.interval
                case "delta" if message.delta.new_element.WhichOneof("type") == "exception":
                    raise RuntimeError(message.delta.new_element.exception.message)
                case "script_finished":
                    if message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                        return

    def watch(self, live: Callable[[], bool]) -> int:
        """Keep the fragments' timers while `live()`; returns how often one was drawn again."""
        drawn = 0
        while live() and self.timers:
            fragment, interval = min(self.timers.items(), key=lambda timer: timer[1])
            due = monotonic() + interval
            self.rerun(fragment)
            drawn += 1
            sleep(max(0.0, due - monotonic()))
        return drawn


@contextmanager
def visiting(address: str, query: str = "", page: str = "") -> Iterator[Visitor]:
    """Open the page of the server at `address` (host:port) and draw it once."""
    with connect(f"ws://{address}/_stcore/stream", subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
        visitor = Visitor(socket, query, page)
        visitor.rerun()
        yield visitor
