"""A collector of traces that takes what it is sent, counts it and forgets it."""

import concurrent.futures
import contextlib

import grpc


@contextlib.contextmanager
def collector():
    """(its endpoint, what it has received), for as long as the block runs."""
    received = {"exports": 0, "bytes": 0}

    class Taking(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(take)

    def take(request, context):
        received["exports"] += 1
        received["bytes"] += len(request)
        return b""

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Taking()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(None)
