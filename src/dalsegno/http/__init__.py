"""Talk: routes, credentials, the SSE and WebSocket writers. Knows values and promises, names no product and no SDK."""
