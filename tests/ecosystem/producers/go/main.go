// Producer of the metrics that a JSON file describes, with OpenTelemetry's SDK for Go.
//
// It records each series of the file, exports, records each series again, and exports at its end.
// OTEL_EXPORTER_OTLP_PROTOCOL selects the exporter; the SDK reads the other standard variables.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

// Described is one metric of the file.
type Described struct {
	Name        string    `json:"name"`
	Instrument  string    `json:"instrument"`
	Unit        string    `json:"unit"`
	Description string    `json:"description"`
	Boundaries  []float64 `json:"boundaries"`
	Series      []struct {
		Attributes map[string]any `json:"attributes"`
		Value      string         `json:"value"`
	} `json:"series"`
}

func newExporter(ctx context.Context) (sdk.Exporter, error) {
	switch protocol := os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	case "http/protobuf":
		return otlpmetrichttp.New(ctx)
	default:
		return nil, fmt.Errorf("the protocol %q is not supported", protocol)
	}
}

// record adds one measurement to a series.
type record func(ctx context.Context, value float64, attributes metric.MeasurementOption)

func newInstrument(meter metric.Meter, described Described) (record, error) {
	unit, description := metric.WithUnit(described.Unit), metric.WithDescription(described.Description)
	switch described.Instrument {
	case "counter":
		counter, err := meter.Int64Counter(described.Name, unit, description)
		return func(ctx context.Context, value float64, attributes metric.MeasurementOption) {
			counter.Add(ctx, int64(value), attributes)
		}, err
	case "updowncounter":
		counter, err := meter.Int64UpDownCounter(described.Name, unit, description)
		return func(ctx context.Context, value float64, attributes metric.MeasurementOption) {
			counter.Add(ctx, int64(value), attributes)
		}, err
	case "histogram":
		options := []metric.Float64HistogramOption{unit, description}
		if len(described.Boundaries) > 0 {
			options = append(options, metric.WithExplicitBucketBoundaries(described.Boundaries...))
		}
		histogram, err := meter.Float64Histogram(described.Name, options...)
		return func(ctx context.Context, value float64, attributes metric.MeasurementOption) {
			histogram.Record(ctx, value, attributes)
		}, err
	case "gauge":
		gauge, err := meter.Float64Gauge(described.Name, unit, description)
		return func(ctx context.Context, value float64, attributes metric.MeasurementOption) {
			gauge.Record(ctx, value, attributes)
		}, err
	default:
		return nil, fmt.Errorf("the instrument %q is unknown", described.Instrument)
	}
}

func withAttributes(described map[string]any) metric.MeasurementOption {
	var attributes []attribute.KeyValue
	for name, value := range described {
		switch value := value.(type) {
		case bool:
			attributes = append(attributes, attribute.Bool(name, value))
		case float64:
			attributes = append(attributes, attribute.Int(name, int(value)))
		case string:
			attributes = append(attributes, attribute.String(name, value))
		default: // null
			attributes = append(attributes, attribute.String(name, ""))
		}
	}
	return metric.WithAttributes(attributes...)
}

func recordAll(ctx context.Context, metrics []Described, instruments []record) error {
	for i, described := range metrics {
		for _, series := range described.Series {
			value, err := strconv.ParseFloat(series.Value, 64)
			if err != nil {
				return err
			}
			instruments[i](ctx, value, withAttributes(series.Attributes))
		}
	}
	return nil
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var metrics []Described
	if err := json.Unmarshal(text, &metrics); err != nil {
		return err
	}
	// Within a sampled span, the SDK attaches exemplars to the data points.
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	exporter, err := newExporter(ctx)
	if err != nil {
		return err
	}
	from, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithHostID(), resource.WithOS(), resource.WithProcess(), resource.WithContainer())
	if err != nil {
		return err
	}
	provider := sdk.NewMeterProvider(
		sdk.WithResource(from),
		sdk.WithReader(sdk.NewPeriodicReader(exporter)),
		// A view drops this attribute from the series, but not from the exemplars.
		sdk.WithView(sdk.NewView(sdk.Instrument{Name: "*"},
			sdk.Stream{AttributeFilter: attribute.NewDenyKeysFilter("client.address")})),
	)
	meter := provider.Meter("messaging")
	instruments := make([]record, len(metrics))
	for i, described := range metrics {
		if instruments[i], err = newInstrument(meter, described); err != nil {
			return err
		}
	}
	if err := recordAll(ctx, metrics, instruments); err != nil {
		return err
	}
	if err := provider.ForceFlush(ctx); err != nil {
		return err
	}
	if err := recordAll(ctx, metrics, instruments); err != nil {
		return err
	}
	return provider.Shutdown(ctx)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: producer FILE")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}
