"""gunicorn's settings for ``gunicorn -c conf/gunicorn.py web.wsgi:app``."""

import os

bind = os.environ.get("NEXTDEPLOY_ADMIN_LISTEN", "127.0.0.1:8090")
worker_class = "gevent"
workers = 1  # the daemon does the work; this only asks it
accesslog = None
errorlog = "-"
loglevel = "warning"
keepalive = 75
limit_request_line = 8190
