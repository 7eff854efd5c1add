package build

import (
	"context"
	"maps"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
)

// datedExporter has an exporter of archives make the images that the store would have: of the same date, and with layers as they are kept.
type datedExporter struct {
	exporter.Exporter
	b *Builder
}

// Resolve reads the attributes.
func (e *datedExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	attrs, ours := packed(attrs)
	inner, err := e.Exporter.Resolve(ctx, id, attrs)
	return &datedOutcome{ExporterInstance: inner, e: e, id: id, attrs: attrs, pack: ours}, err
}

// datedOutcome is one result on its way into an archive.
type datedOutcome struct {
	exporter.ExporterInstance
	e     *datedExporter
	id    int
	attrs map[string]string
	pack  bool
}

// Export writes it.
func (o *datedOutcome) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	if o.pack {
		if err := pack(ctx, src, session.NewGroup(info.SessionID)); err != nil {
			return nil, nil, nil, err
		}
	}
	if said := o.attrs[string(exptypes.OptKeySourceDateEpoch)]; said != "" {
		return o.ExporterInstance.Export(ctx, madeThen(src, said), info)
	}
	if o.e.b.o.dates() == "" {
		return o.ExporterInstance.Export(ctx, src, info)
	}
	attrs, date := maps.Clone(o.attrs), madeAt(src)
	attrs[string(exptypes.OptKeySourceDateEpoch)] = date
	inner, err := o.e.Exporter.Resolve(ctx, o.id, attrs)
	if err != nil {
		return nil, nil, nil, err
	}
	return inner.Export(ctx, madeThen(src, date), info)
}
