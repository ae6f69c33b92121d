"""Writing streams: Server-Sent Events, NDJSON and WebSocket frames, and who is behind them."""
