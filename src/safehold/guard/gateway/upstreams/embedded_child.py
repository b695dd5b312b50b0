"""The process in which the embedded model runs; started by `local.py`, ends with its stdin."""

import json
import os
import sys
from urllib.parse import urlsplit


def main() -> None:
    """Serve the model that the first line of stdin describes, until stdin ends."""
    import xllamacpp

    settings = json.loads(sys.stdin.buffer.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = [settings["alias"]]
    params.hostnames = ["127.0.0.1"]
    params.port = settings["port"]
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.endpoint_slots = False
    params.endpoint_props = False
    params.ui = False
    server = xllamacpp.Server(params)
    port = urlsplit(server.listening_address).port
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's threads need no farewell, and a joined one may hang


if __name__ == "__main__":
    main()
