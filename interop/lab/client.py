"""A DHT client and node on Debian's OpenDHT bindings, driven by JSON lines.

Requests on stdin: {"id": n, "cmd": name, ...}. Answers on stdout, in any order:
{"id": n, "ok": true, ...} or {"id": n, "ok": false, "error": text}. Values that a
listen delivers come as {"event": "value", "listen": n, ...}. End of input ends
the program.

Facts about the 2.4.12 bindings that shape this file:
- value.owner of a value without owner crashes the interpreter: only the text form
  of a value is safe to look at.
- There is no signed, encrypted or permanent put.
- done_cb of get and put is called with (ok, nodes); the callback of listen with
  (value, expired). Callbacks run in the DHT's thread.
"""
import base64
import json
import os
import resource
import sys
import threading
import time

import opendht as dht

write_lock = threading.Lock()


def emit(message):
    with write_lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def info_hash(key):
    """40 hex digits, or text that is hashed."""
    if len(key) == 40 and all(c in "0123456789abcdef" for c in key):
        return dht.InfoHash(key.encode())
    return dht.InfoHash.get(key)


def content(prefix, index, size):
    """The value that belongs to an index: recognisable, of a given size."""
    head = ("%s%d|" % (prefix, index)).encode()
    return (head + b"." * size)[: max(size, len(head))]


def value_message(value):
    return {
        "vid": value.id,
        "text": str(value)[:300],
        "utype": value.user_type,
        "data": base64.b64encode(value.data).decode(),
    }


class Client:
    def __init__(self):
        self.runner = None
        self.listens = {}
        self.serial = 0

    def start(self, m):
        config = dht.DhtConfig()
        config.setNetwork(m.get("network", 0))
        if m.get("nolimits"):
            config.setRateLimit(-1, -1)
        if m.get("identity"):
            config.setIdentity(dht.Identity.generate("lab", dht.Identity(), 2048))
        self.runner = dht.DhtRunner()
        self.runner.run(port=m.get("port", 0), ipv4=m["addr"], config=config)
        if m.get("bootstrap"):
            host, port = m["bootstrap"].rsplit(":", 1)
            self.runner.bootstrap(host, port)
        return {
            "port": self.runner.getBound().getPort(),
            "node": self.runner.getNodeId().decode(),
            "key": self.runner.getId().toString().decode(),
        }

    def bootstrap(self, m):
        host, port = m["bootstrap"].rsplit(":", 1)
        self.runner.bootstrap(host, port)
        return {}

    def put(self, m):
        value = dht.Value(base64.b64decode(m["data"]))
        if m.get("vid"):
            value.id = m["vid"]
        if m.get("utype"):
            value.user_type = m["utype"]
        done = threading.Event()
        out = {}

        def on_done(ok, nodes):
            out.update(done=ok, nodes=len(nodes), us=int((time.perf_counter() - start) * 1e6))
            done.set()

        start = time.perf_counter()
        self.runner.put(info_hash(m["key"]), value, on_done)
        if not done.wait(m["timeout"]):
            raise TimeoutError("put not acknowledged")
        out["vid"] = value.id
        return out

    def get(self, m):
        done = threading.Event()
        values, out = [], {}

        def on_value(value):
            if not values:
                out["first_us"] = int((time.perf_counter() - start) * 1e6)
            values.append(value_message(value))
            return True

        def on_done(ok, nodes):
            out.update(done=ok, nodes=len(nodes), us=int((time.perf_counter() - start) * 1e6))
            done.set()

        start = time.perf_counter()
        self.runner.get(info_hash(m["key"]), on_value, on_done)
        if not done.wait(m["timeout"]):
            raise TimeoutError("get not finished")
        out["values"] = values
        return out

    def listen(self, m):
        self.serial += 1
        number = self.serial

        def on_value(value, expired):
            emit(dict(value_message(value), event="value", listen=number,
                      expired=expired, time=time.time()))
            return True

        self.listens[number] = self.runner.listen(info_hash(m["key"]), on_value)
        return {"listen": number}

    def cancel(self, m):
        self.runner.cancelListen(self.listens.pop(m["listen"]))
        return {}

    def bulk(self, m):
        """Many operations, at most `window` of them under way; figures for each.

        A sample is [microseconds, microseconds to the first value or -1, 1 if all
        went well, nodes that took part].
        """
        op, prefix, size = m["op"], m["prefix"], m["size"]
        first, count, window = m["first"], m["count"], m["window"]
        samples = [None] * count
        slots = threading.Semaphore(window)
        clock = time.perf_counter

        def run(i):
            key = dht.InfoHash.get("%s%d" % (prefix, first + i))
            want = content(prefix, first + i, size)
            state = {"first": -1, "found": False}
            start = clock()

            def on_value(value):
                if state["first"] < 0:
                    state["first"] = int((clock() - start) * 1e6)
                if value.data == want:
                    state["found"] = True
                return True

            def on_done(ok, nodes):
                if samples[i] is not None:
                    return
                good = ok if op == "put" else ok and state["found"] == (op == "get")
                samples[i] = [int((clock() - start) * 1e6), state["first"], int(good), len(nodes)]
                slots.release()

            if op == "put":
                self.runner.put(key, dht.Value(want), on_done)
            else:
                self.runner.get(key, on_value, on_done)

        begin = clock()
        for i in range(count):
            if not slots.acquire(timeout=m["timeout"]):
                raise TimeoutError("%s %d of %d: no operation ended in time" % (op, i, count))
            run(i)
        for _ in range(window):
            if not slots.acquire(timeout=m["timeout"]):
                raise TimeoutError("%s: not all operations ended" % op)
        return {"us": int((clock() - begin) * 1e6), "samples": samples}

    def stats(self, m):
        use = resource.getrusage(resource.RUSAGE_SELF)
        return {
            # ping, find, get, listen, put: requests that this node has sent since
            # the last look. The library zeroes the counters at each look.
            "sent": self.runner.getNodeMessageStats(),
            "cpu_us": int((use.ru_utime + use.ru_stime) * 1e6),
        }

    def storage(self, m):
        return {"text": self.runner.getStorageLog()}


def main():
    client = Client()

    def serve(m):
        try:
            emit(dict(getattr(client, m["cmd"])(m), id=m["id"], ok=True))
        except Exception as e:  # whatever it is, the other side must hear of it
            emit({"id": m["id"], "ok": False, "error": "%s: %s" % (type(e).__name__, e)})

    for line in sys.stdin:
        threading.Thread(target=serve, args=(json.loads(line),), daemon=True).start()
    os._exit(0)  # an orderly shutdown waits for the network


main()
