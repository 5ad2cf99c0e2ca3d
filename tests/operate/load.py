"""Clients of both doors that make every panel move: reads and writes, misses, refusals, held requests, a watch."""

import contextlib
import http.client
import itertools
import threading

import grpc


def field(number, content):
    """A field of bytes in protobuf's notation; short ones are all that is needed."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def ask(address, method, path, body=None):
    """One request on a connection of its own; its status, or nothing if there is nobody."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    return None


def rest(address, ending):
    """What a REST client does, over and over on one connection."""
    connection = http.client.HTTPConnection(address, timeout=10)
    requests = [
        ("PUT", "/v1/kv/load/{n}?ttl=1m", b"value" * 50),
        ("GET", "/v1/kv/load/{n}", None),
        ("GET", "/v1/kv/missing/{n}", None),
        ("PUT", "/v1/kv/load/{n}?unknown=1", b"refused"),
        ("PUT", "/v1/kv/load/{n}?if_version=99", b"refused"),
        ("POST", "/v1/counters/count/{n}", None),
        ("PATCH", "/v1/kv/load/{n}?ttl=2m", None),
        ("GET", "/v1/kv?prefix=load/&page_size=20", None),
        ("GET", "/v1/kv:count?prefix=load/", None),
        ("GET", "/v1/kv?prefix=load/1", None, {"accept": "application/x-ndjson"}),
        ("DELETE", "/v1/kv/count/{n}", None),
        ("GET", "/v1/nowhere", None),
    ]
    for number in itertools.count():
        for method, path, body, *headers in requests:
            if ending.is_set():
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request(method, path.format(n=number % 500), body, *headers)
                connection.getresponse().read()
                continue
            # The server is away for its restart: a new connection is tried at the next request.
            connection.close()
            ending.wait(0.05)


def held(address, ending):
    """A request that waits for a change that does not come."""
    while not ending.wait(0.05):
        connection = http.client.HTTPConnection(address, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v1/kv/never?wait=100ms")
            connection.getresponse().read()
        connection.close()


def watching(address, ending):
    """A watcher that reads along."""
    while not ending.wait(0.05):
        connection = http.client.HTTPConnection(address, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v1/watch?prefix=load/")
            changes = connection.getresponse()
            while not ending.is_set() and changes.readline():
                pass
        connection.close()


def rpc(address, ending):
    """What a gRPC client does, over and over on one channel."""
    with grpc.insecure_channel(address, [("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        call = {method: channel.unary_unary(f"/tandem.v1.KvService/{method}") for method in ("Get", "Put", "Delete")}
        for number in itertools.count():
            key = field(1, b"load/%d" % (number % 500))
            requests = [("Put", key + field(2, b"by gRPC")), ("Get", key), ("Get", field(1, b"missing")), ("Delete", b"")]
            for method, request in requests:
                if ending.is_set():
                    return
                with contextlib.suppress(grpc.RpcError):
                    call[method](request, timeout=5)


@contextlib.contextmanager
def running(http_address, grpc_address):
    """All of them, for as long as the block runs."""
    ending = threading.Event()
    clients = [(rest, http_address), (rest, http_address), (held, http_address), (watching, http_address)]
    clients.append((rpc, grpc_address))
    threads = [threading.Thread(target=client, args=(address, ending)) for client, address in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()
