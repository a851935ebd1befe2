// The second half of a batch normalisation's gradient: that of x, from the table that the first half leaves.
//
// Where four channels are taken at a time, a workgroup of WIDE invocations takes a block of channels and a slab of places
// (pixels or windows of all images of the launch). It first adds up the chunks of its own channels:
//
//          columns                       row 0 takes chunks 0, rows, 2*rows, .. of the table, row 1 the next ones, ..;
//        +----+----+----+----+           then the rows are added up. With the totals in their registers the rows
//        | v4 | v4 | v4 | v4 |  row 0    take turns with the places of the slab, so that what they read together is
//        | v4 | v4 | v4 | v4 |  row 1    together in memory. Or each row has a part of the slab of its own: where one
//        +----+----+----+----+  ...      core runs one row after the other, its cache likes that better.
//
// All slabs add up the same numbers in the same order; the first one writes them as gw and gb.
//
// The including file has chunks, slab, turns and inverse_count in its Params, the table as table and table4, gw and gb as
// gw_in and gb_in and as gw_out4 and gb_out4, and takes in lib/batch_norm and lib/batch_norm_sums.

var<workgroup> tile_totals: array<vec4<f32>, 2u * WIDE_COLUMNS>;

/// What gx takes of a channel: how it was normalised, and the shares of gb and gw (0 in eval mode).
struct Channel {
    center: f32,
    scale: f32,
    shift: f32,
    mean_gv: f32,
    slope: f32, // gx loses scale * slope for each unit of x - center
}

fn channel(c: u32) -> Channel {
    let channels = params.channels;
    return Channel(
        table[c],
        table[channels + c],
        table[2u * channels + c],
        params.inverse_count * gb_in[c],
        params.inverse_count * gw_in[c] * table[3u * channels + c],
    );
}

fn input_gradient(per: Channel, x: f32, gy: f32) -> f32 {
    let off = x - per.center;
    return per.scale * (gated(gy, off * per.scale + per.shift) - per.mean_gv - off * per.slope);
}

/// The same of four channels.
struct Channel4 {
    center: vec4<f32>,
    scale: vec4<f32>,
    shift: vec4<f32>,
    mean_gv: vec4<f32>,
    slope: vec4<f32>,
}

fn input_gradient4(per: Channel4, x: vec4<f32>, gy: vec4<f32>) -> vec4<f32> {
    let off = x - per.center;
    return per.scale * (gated4(gy, off * per.scale + per.shift) - per.mean_gv - off * per.slope);
}

/// The vector of channels of an invocation: blocks of one slab, then those of the next. The last block may be too wide.
fn slab_quad(group: u32, lid: u32) -> u32 { return (group % blocks()) * params.columns + lid % params.columns; }

/// The places of an invocation: first, end and step. None where the block is too wide.
struct Walk { first: u32, end: u32, step: u32 }

fn slab_walk(group: u32, lid: u32, places: u32) -> Walk {
    let rows = WIDE / params.columns;
    let row = lid / params.columns;
    let part = params.slab / rows; // the host has made it a whole number
    let start = group / blocks() * params.slab;
    let inside = slab_quad(group, lid) < params.channels / 4u;
    if params.turns == 1u { return Walk(start + row, select(0u, min(start + params.slab, places), inside), rows); }
    let first = start + row * part;
    return Walk(first, select(0u, min(first + part, places), inside), 1u);
}

/// Adds up the chunks of the workgroup's channels.
fn slab_channel4(group: u32, lid: u32) -> Channel4 {
    let quads = params.channels / 4u;
    let quad = slab_quad(group, lid);
    let q = min(quad, quads - 1u);
    var sum = vec4(0.0);
    var product = vec4(0.0);
    for (var k = lid / params.columns; k < params.chunks; k += WIDE / params.columns) {
        sum += table4[(4u + 2u * k) * quads + q];
        product += table4[(5u + 2u * k) * quads + q];
    }
    let total = wide_sums(sum, product, lid);
    if lid < params.columns {
        tile_totals[lid] = total[0];
        tile_totals[WIDE_COLUMNS + lid] = total[1];
        if group < blocks() && quad < quads {
            gb_out4[quad] = total[0];
            gw_out4[quad] = total[1];
        }
    }
    workgroupBarrier(); // the totals of all columns are in the tile
    let column = lid % params.columns;
    return Channel4(
        table4[q],
        table4[quads + q],
        table4[2u * quads + q],
        params.inverse_count * tile_totals[column],
        params.inverse_count * tile_totals[WIDE_COLUMNS + column] * table4[3u * quads + q],
    );
}
