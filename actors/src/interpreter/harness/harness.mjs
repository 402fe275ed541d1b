// The host program of an interpreter process.
