#!/bin/sh
# A server on another port, where the environment says so.
[ -z "${EXTRA_PORT:-}" ] || echo "server { listen $EXTRA_PORT; location / { return 200 \"hello from port $EXTRA_PORT\\n\"; } }" >/etc/nginx/conf.d/extra.conf
