"""A connection carried by aiomqtt, and by the paho client inside it.

This is the only package that knows either. aiomqtt opens the socket, ties paho to the event loop and says
DISCONNECT. What its public face hides is taken one step below it, from the callbacks that it gives to paho:

- the reason code of a PUBACK or PUBCOMP, which aiomqtt drops, and that of a PUBREC, which paho ignores;
- what CONNACK said about the broker's limits;
- each received message, without the queue and the task a message that ``messages`` costs;
- the end of a connection before CONNACK, which aiomqtt waits out;
- exchanges that outlive their connection. paho keeps them in one client, where each attempt to connect
  changes their state, so that a second one publishes a QoS 2 message anew instead of releasing it.

docs/decisions/0002 gives the measurements. The version of aiomqtt is bounded for this reason.
"""

from tidegate.connections.aiomqtt_connection.connection import AiomqttConnection, connect

__all__ = ["AiomqttConnection", "connect"]
