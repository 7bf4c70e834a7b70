"""The edges: HTTP and WebSocket. Thin: parse, call one channel method, format."""
