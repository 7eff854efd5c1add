"""Counts visits in PostgreSQL and in Redis, and says who it is."""
import http.server, os, socket

import psycopg2
import redis

VERSION = open("/app/VERSION").read().strip()
DATABASE = f"{os.environ['DATABASE']} password={open('/run/secrets/database').read().strip()}"
cache = redis.Redis(os.environ["CACHE"])


def visit():
    with psycopg2.connect(DATABASE) as db, db.cursor() as c:
        c.execute("INSERT INTO visits VALUES (%s)", (socket.gethostname(),))
        c.execute("SELECT count(*) FROM visits")
        return c.fetchone()[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"version {VERSION} visits {visit()} hits {cache.incr('hits')} on {socket.gethostname()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with psycopg2.connect(DATABASE) as db, db.cursor() as c:
    c.execute("SELECT pg_advisory_xact_lock(1)")  # ten of these may begin at once
    c.execute("CREATE TABLE IF NOT EXISTS visits (host text)")
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
