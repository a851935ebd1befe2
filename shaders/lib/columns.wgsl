// The workgroup seen as a table: invocation lid stands in row lid / columns and column lid % columns.
// `columns` is a power of two up to WG. Neighbouring invocations take neighbouring channels of one pixel, so that
// they read consecutive memory; the rows take different pixels.

var<workgroup> tile_columns: array<vec4<f32>, 2u * WG>;

/// The sum of each column over its rows, top to bottom: a fixed order, so the same bits in every run.
/// Two sums in a row use slot 0 and slot 1: then nobody overwrites what others still read, and one barrier is enough.
/// (A tree needs one per level; with at most 16 rows the additions are cheaper than the barriers.)
fn column_sum(value: vec4<f32>, slot: u32, columns: u32, lid: u32) -> vec4<f32> {
    tile_columns[slot * WG + lid] = value;
    workgroupBarrier(); // every value is in the tile
    var total = vec4(0.0);
    for (var at = lid & (columns - 1u); at < WG; at += max(columns, 1u)) { total += tile_columns[slot * WG + at]; }
    return total;
}
