// Which part of a launch a workgroup belongs to, where one launch serves several layers.
//
// The including file has `parts`, a table of PARTS structs whose `first_group` is the part's first workgroup, in rising
// order; parts that are not used begin behind every workgroup.

fn part_of(group: u32) -> u32 {
    var which = 0u;
    for (var i = 1u; i < PARTS; i++) { which = select(which, i, parts[i].first_group <= group); }
    return which;
}
