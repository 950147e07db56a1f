"""Doors out of a network namespace: sockets that listen inside and are served from outside."""

import ctypes
import os
import selectors
import socket
import subprocess
import threading
from contextlib import suppress

CLONE_NEWNET = 0x40000000


class Network:
    """A network namespace with nothing but loopback, which also has the metadata address."""

    def __init__(self, name):
        self.name = name
        self.path = f"/run/netns/{name}"
        self.doors = []
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "address", "add", "169.254.169.254/32", "dev", "lo")

    def open(self, address, target):
        """Let connections to an address inside reach a (host, port) outside."""
        door = Door(self._listen(address), target)
        self.doors.append(door)
        return door

    def close(self):
        for door in self.doors:
            door.close()
        _ip("netns", "delete", self.name)

    def _listen(self, address):
        made = []

        def enter():
            handle = os.open(self.path, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_server(address, backlog=128))
            finally:
                os.close(handle)

        # Only that thread moves into the namespace, and it ends there.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]


class Door:
    """One listening socket. ``is_hole``: connections are taken and never answered."""

    def __init__(self, listener, target):
        self.listener, self.target, self.is_hole = listener, target, False
        self._held = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self.listener.close()
        for one in self._held:
            one.close()

    def _serve(self):
        while True:
            try:
                inside, _ = self.listener.accept()
            except OSError:
                return
            self._held.append(inside)
            if not self.is_hole:
                threading.Thread(target=self._relay, args=(inside,), daemon=True).start()

    def _relay(self, inside):
        with suppress(OSError), inside, socket.create_connection(self.target, 10) as outside:
            other = {inside: outside, outside: inside}
            with selectors.DefaultSelector() as selector:
                for end in other:
                    selector.register(end, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65_536)
                        if self.is_hole:
                            threading.Event().wait()
                        if not data:
                            return
                        other[key.fileobj].sendall(data)


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
