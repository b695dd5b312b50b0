"""NeMo Guardrails' own server on a loopback port (its command listens on every interface).

Run by the peer's Python: `python nemo_server.py CONFIGURATIONS NAME`; prints the port.
"""

import socket
import sys

import uvicorn
from nemoguardrails.server.api import app

folder, name = sys.argv[1:]
app.rails_config_path = folder
app.default_config_id = name
app.disable_chat_ui = True
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
sock.listen(1024)
print(sock.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[sock])
