"""A closed-loop HTTP client that costs a tenth of the servers that it measures.

    python benchmarks/http_load.py HOST PORT CONNECTIONS SECONDS < requests

Reads fixed requests from standard input, each as 8 hexadecimal digits of its length and its bytes,
and sends them in turn over keep-alive connections, one in flight on each. Prints JSON: requests,
seconds, latencies in microseconds by percentile, and the distinct status lines with their counts.
"""

import json
import selectors
import socket
import sys
import time
from collections import Counter

PERCENTILES = (50, 90, 99)


class Connection:
    """One keep-alive connection and the request that is in flight on it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self.answer = b""

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read the bytes that have arrived; return whether the answer is complete."""
        received = self.socket.recv(1 << 20)
        if not received:
            raise ConnectionError(f"the server closed the connection after {self.answer!r}")
        self.answer += received
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return False
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)


def load(host: str, port: int, connections: int, seconds: float, requests: list[bytes]) -> dict:
    """Send requests for some seconds; return the measurements."""
    latencies: list[float] = []
    statuses: Counter[bytes] = Counter()
    with selectors.DefaultSelector() as selector:
        opened = [Connection(host, port) for _ in range(connections)]
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began = time.perf_counter()
        for place, connection in enumerate(opened):
            connection.send(requests[place % len(requests)])
        sent = in_flight = connections
        while in_flight:
            for key, _events in selector.select():
                connection = key.data
                if not connection.is_answered():
                    continue
                now = time.perf_counter()
                latencies.append(now - connection.began)
                statuses[connection.answer[:12]] += 1
                if now - began < seconds:
                    connection.send(requests[sent % len(requests)])
                    sent += 1
                else:
                    in_flight -= 1
        took = time.perf_counter() - began
        for connection in opened:
            connection.socket.close()
    latencies.sort()
    places = {p: latencies[min(len(latencies) - 1, len(latencies) * p // 100)] for p in PERCENTILES}
    return {
        "requests": len(latencies),
        "seconds": took,
        "microseconds": {f"p{p}": round(latency * 1e6) for p, latency in places.items()},
        "statuses": {status.decode(): count for status, count in statuses.items()},
    }


def main() -> None:
    host, port, connections, seconds = sys.argv[1:5]
    text, requests = sys.stdin.buffer.read(), []
    while text:
        end = 8 + int(text[:8], 16)
        requests.append(text[8:end])
        text = text[end:]
    print(json.dumps(load(host, int(port), int(connections), float(seconds), requests)))


if __name__ == "__main__":
    main()
