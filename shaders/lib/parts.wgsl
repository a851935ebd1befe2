// Which part of a launch a workgroup belongs to, where one launch serves several layers.
//
// The including file has `parts`, a table of PARTS (a power of two) structs whose `first_group` is the part's first
// workgroup, in rising order; parts that are not used begin behind every workgroup.

/// Halves the range in which the part is to be found.
fn part_of(group: u32) -> u32 {
    var which = 0u;
    for (var half = PARTS / 2u; half > 0u; half = half / 2u) {
        which = select(which, which + half, parts[which + half].first_group <= group);
    }
    return which;
}
