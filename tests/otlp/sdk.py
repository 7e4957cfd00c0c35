"""Sends one gauge, one counter and one histogram by OTLP, with nothing but OpenTelemetry's own SDK.

Run and rank come from OTEL_RESOURCE_ATTRIBUTES, as in a launch script. The address is the first argument.
"""

import sys

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

exporter = OTLPMetricExporter(endpoint=f"http://{sys.argv[1]}", insecure=True)
provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
meter = provider.get_meter("training")
meter.create_gauge("loss").set(2.5, {"trainwarden.step": 7})
meter.create_counter("tokens").add(4096, {"trainwarden.step": 7})
meter.create_histogram("latency").record(0.1)
# It sends what it has, once.
provider.shutdown(30_000)
