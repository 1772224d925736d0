"""A transparency log in C2SP formats: Merkle tree, proofs, signed notes, checkpoints.

Pure functions on bytes and text. They import hashlib, base64 and PyNaCl, and nothing of ours.
Hashes are 32 bytes; several hashes are their concatenation, except in proofs (sequences).

Functions that read tiles take `tiles(level, number, width) -> bytes`, which returns
exactly the first `width` hashes of that tile (`width * 32` bytes). It does not await: load
what `required_tiles(lambda tiles: inclusion_proof(index, size, tiles))` names beforehand.

tree.py - RFC 6962 section 2.1
    EMPTY_ROOT
    leaf_hash(entry) -> bytes
    node_hash(left, right) -> bytes
    append(size, right_edge, leaf_hashes) -> Growth(size, root, tiles, right_edge)
        right_edge: {level: hashes of its partial tile}; leaf_hashes: bytes, concatenated
        tiles: (GrownTile(level, number, hashes), ...)
    root_of_edge(size, right_edge) -> bytes
    root(size, tiles) -> bytes
    inclusion_proof(index, size, tiles) -> list[bytes]
    consistency_proof(old_size, size, tiles) -> list[bytes]

verification.py - RFC 9162 section 2.1.3.2
    verify_inclusion(index, size, leaf_hash, root, proof)      returns None or raises ProofError

tiles.py - c2sp.org/tlog-tiles
    ProofError(ValueError), HASH_BYTES, TILE_WIDTH, TILE_BYTES, Tiles
    Tile(level, number, width)
    width_of(level, number, size) -> int            0 if there is no such tile
    tiles_of(size, since=0) -> Iterator[Tile]       what a static tree has, or what it gains
    required_tiles(read) -> tuple[Tile, ...]
    tile_path(level, number, width) -> str          tile/0/x001/067.p/12

note.py - c2sp.org/signed-note, c2sp.org/tlog-cosignature; raise NoteError(ValueError)
    VerifierKey(name, public_key, algorithm)        .parse(vkey), .of_seed(name, seed, algorithm),
                                                    .key_hash, str(key) is the vkey
    Algorithm.ED25519, Algorithm.COSIGNATURE_V1
    sign(text, name, seed) -> Signature             .line is its line in the note
    cosign(text, name, seed, time_s) -> Signature
    assemble(text, signatures) -> str               the note
    with_lines(note, lines) -> str                  the note with further signature lines
    parse(note) -> Note(text, signatures)           not verified
    parse_signatures(lines) -> tuple[Signature, ...]  a witness's answer
    verify(note, keys) -> VerifiedNote(text, (VerifiedSignature(key, time_s), ...))

checkpoint.py - c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof, c2sp.org/tlog-witness
    Checkpoint(origin, size, root, extensions=())   .text(), .parse(text)
    open_checkpoint(note, log_keys, witness_keys=())
        -> SignedCheckpoint(checkpoint, log_keys, cosignatures)
    LogProof(index, proof, note, extra=b"")         .text(), .parse(content),
                                                    .verify(leaf_hash, log_keys, witness_keys=())
    witness_request(old_size, proof, note) -> str   the body of add-checkpoint
"""
