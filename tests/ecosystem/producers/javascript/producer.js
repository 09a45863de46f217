#!/usr/bin/env node
// Producer of the metrics that a JSON file describes, with OpenTelemetry's SDK for JavaScript.
//
// It records each series of the file, exports, records each series again, and exports at its end.
// OTEL_EXPORTER_OTLP_PROTOCOL selects the exporter; the SDK reads the other standard variables.
import { readFileSync } from "node:fs";

import { DiagConsoleLogger, DiagLogLevel, diag } from "@opentelemetry/api";
import { OTLPMetricExporter as GrpcExporter } from "@opentelemetry/exporter-metrics-otlp-grpc";
import { OTLPMetricExporter as JsonExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPMetricExporter as ProtobufExporter } from "@opentelemetry/exporter-metrics-otlp-proto";
import {
  defaultResource,
  detectResources,
  envDetector,
  hostDetector,
  osDetector,
  processDetector,
  serviceInstanceIdDetector,
} from "@opentelemetry/resources";
import {
  AggregationType,
  InstrumentType,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";

const EXPORTERS = { grpc: GrpcExporter, "http/json": JsonExporter, "http/protobuf": ProtobufExporter };

function newProvider() {
  const Exporter = EXPORTERS[process.env.OTEL_EXPORTER_OTLP_PROTOCOL];
  const detectors = [envDetector, hostDetector, osDetector, processDetector, serviceInstanceIdDetector];
  const exponential =
    process.env.OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION === "base2_exponential_bucket_histogram";
  return new MeterProvider({
    resource: defaultResource().merge(detectResources({ detectors })),
    readers: [new PeriodicExportingMetricReader({ exporter: new Exporter() })],
    // The exporter does not read this variable.
    views: exponential
      ? [{ instrumentType: InstrumentType.HISTOGRAM, aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }]
      : [],
  });
}

// Return a function that records a value with attributes.
function newInstrument(meter, { name, instrument, unit, description, boundaries }) {
  const advice = boundaries.length ? { explicitBucketBoundaries: boundaries } : {};
  const options = { unit, description, advice };
  switch (instrument) {
    case "counter": {
      const counter = meter.createCounter(name, options);
      return (value, attributes) => counter.add(value, attributes);
    }
    case "updowncounter": {
      const counter = meter.createUpDownCounter(name, options);
      return (value, attributes) => counter.add(value, attributes);
    }
    case "histogram": {
      const histogram = meter.createHistogram(name, options);
      return (value, attributes) => histogram.record(value, attributes);
    }
    case "gauge": {
      const gauge = meter.createGauge(name, options);
      return (value, attributes) => gauge.record(value, attributes);
    }
    default:
      throw new Error(`the instrument ${instrument} is unknown`);
  }
}

diag.setLogger(new DiagConsoleLogger(), DiagLogLevel.WARN);
const metrics = JSON.parse(readFileSync(process.argv[2], "utf8"));
const provider = newProvider();
const meter = provider.getMeter("messaging");
const instruments = metrics.map((metric) => newInstrument(meter, metric));

function recordAll() {
  metrics.forEach(({ series }, number) => {
    for (const { attributes, value } of series) {
      instruments[number](Number(value), attributes);
    }
  });
}

recordAll();
await provider.forceFlush();
recordAll();
await provider.shutdown();
