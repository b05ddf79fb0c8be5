"""Where the files of data sets come from in tests."""

import http.server
import os
import pathlib
import threading

import pytest


@pytest.fixture
def real_dir():
  if "JUNLEARN_DATA_DIR" not in os.environ:
    pytest.skip("JUNLEARN_DATA_DIR, the folder of the real files, is not set")
  return pathlib.Path(os.environ["JUNLEARN_DATA_DIR"])


@pytest.fixture
def server(tmp_path):
  """A web server of this process: `(address, folder that it serves)`."""
  folder = tmp_path / "served"
  folder.mkdir()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=folder)

    def log_message(self, *args):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}/", folder
    web.shutdown()
    thread.join()
