"""Joining and renewing over the network: who asks for a certificate, and how the answer is found."""

from quicbus_broker.enrolment.by_protocol import ByProtocol
from quicbus_broker.enrolment.desk import JoinStatistics
from quicbus_broker.enrolment.enrolment import Enrolment
from quicbus_broker.enrolment.entering import enter_mesh

__all__ = ["ByProtocol", "Enrolment", "JoinStatistics", "enter_mesh"]
