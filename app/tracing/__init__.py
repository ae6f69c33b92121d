"""One trace from the HTTP request that publishes to the stream that delivers (OpenTelemetry).

Rules:

1. Nothing of OpenTelemetry is imported unless traces are asked for (``choice``); without them no request and
   no message takes another way.
2. Each message has one span on its way out (PRODUCER), whose context goes along as the user properties
   ``traceparent`` and ``tracestate``, and one where it is handed to streams (CONSUMER), whether one or many.
3. A message without a trace gets none on its way in: most come from devices, and say nothing by themselves.
4. A span tells the topic, the QoS and the size; never the payload.
"""
