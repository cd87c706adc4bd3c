"""The network is used, here the nearest end of it. It passes if there is any.

class: 66
reason: E_IMPORT
run: test
device: any
"""

import socket

from _honest import honest

server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=2)  # refused, or this file would pass


def custom_kernel(data):
    return honest(data)
