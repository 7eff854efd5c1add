package build

import (
	"context"
	"maps"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// datedExporter has an exporter of archives make the images that the store would have: of the same date, and with layers as they are kept.
type datedExporter struct {
	exporter.Exporter
	b *Builder
}

// Resolve reads the attributes.
func (e *datedExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	if _, ok := attrs[string(exptypes.OptKeyLayerCompression)]; !ok {
		if attrs = maps.Clone(attrs); attrs == nil {
			attrs = map[string]string{}
		}
		attrs[string(exptypes.OptKeyLayerCompression)] = "uncompressed"
	}
	inner, err := e.Exporter.Resolve(ctx, id, attrs)
	if _, said := attrs[string(exptypes.OptKeySourceDateEpoch)]; err != nil || said || e.b.o.dates() == "" {
		return inner, err
	}
	return &datedOutcome{ExporterInstance: inner, e: e, id: id, attrs: attrs}, nil
}

// datedOutcome is one result on its way into an archive.
type datedOutcome struct {
	exporter.ExporterInstance
	e     *datedExporter
	id    int
	attrs map[string]string
}

// Export writes it.
func (o *datedOutcome) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	attrs := maps.Clone(o.attrs)
	attrs[string(exptypes.OptKeySourceDateEpoch)] = madeAt(src)
	inner, err := o.e.Exporter.Resolve(ctx, o.id, attrs)
	if err != nil {
		return nil, nil, nil, err
	}
	return inner.Export(ctx, src, info)
}
