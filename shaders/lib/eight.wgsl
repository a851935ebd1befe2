// Eight 16-bit floats that follow each other in memory.

struct Eight {
    first: Element4,
    second: Element4,
}
