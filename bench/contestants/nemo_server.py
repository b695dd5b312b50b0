"""NeMo Guardrails' own server on a loopback port (its command listens on every interface).

Its server logs every step of a request to the terminal; that is switched off here, in its favour.
Run by the peer's Python: `python nemo_server.py CONFIGURATIONS NAME`; prints the port.
"""

import logging
import os
import socket
import sys

import uvicorn
from nemoguardrails.server.api import app

folder, name = sys.argv[1:]
app.rails_config_path = folder
app.default_config_id = name
app.disable_chat_ui = True
logging.disable(logging.INFO)
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
sock.listen(1024)
print(sock.getsockname()[1], flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[sock])
