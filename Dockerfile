# The image of permcached: one binary, the two schemas that ship with it, and the files that TLS and glibc require.
#
#   docker build -t permcached .
#   docker build -t permcached --build-arg SCHEMA=path/in/this/directory/schema.toml .     with your own schema inside
#
# The schema is /etc/permcached/schema.toml: build it in as above, mount one there, or set SCHEMA_FILE to another file.

# The SBOM of a release lists the crates as well: it also covers these files, and so Cargo.lock.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# A binary requires the glibc that it was built with, or a newer one, so both images are Debian 12. The digest decides which
# image is used, and the tag says what it is: a changed tag changes nothing here. `docker buildx imagetools inspect IMAGE:TAG`
# shows the newest digest. An empty RUST_DIGEST or RUNTIME_DIGEST leaves the choice to the tag.
ARG RUST=1.95
ARG RUST_DIGEST=@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG RUNTIME_DIGEST=@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

FROM docker.io/library/rust:${RUST}-slim-bookworm${RUST_DIGEST} AS build
WORKDIR /build
ENV CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

# The dependencies are a separate layer, which Docker rebuilds only if Cargo.toml or Cargo.lock changes: the package
# itself is empty here. The benches that the manifest names must exist, although cargo builds none of them.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
 && echo 'fn main() {}' | tee build.rs >src/main.rs \
 && touch src/lib.rs \
 && sed -n '/^\[\[bench\]\]/,/^name/s/^name = "\(.*\)"/benches\/\1.rs/p' Cargo.toml | xargs touch \
 && cargo build --locked --release --bin permcached \
 && cargo clean --locked --release --package permcached \
 && rm -r src build.rs

COPY build.rs ./
COPY proto proto
COPY src src
RUN cargo build --locked --release --bin permcached

# Contains glibc, libgcc, the system's certificates (required for MongoDB over TLS and for rediss://) and a user that is not
# root. Contains no shell.
FROM gcr.io/distroless/cc-debian12:nonroot${RUNTIME_DIGEST}
LABEL org.opencontainers.image.title="permcached" \
      org.opencontainers.image.description="Permission checks in microseconds, from the permissions that already live in your MongoDB" \
      org.opencontainers.image.source="https://github.com/permcached/permcached" \
      org.opencontainers.image.licenses="Apache-2.0"

ARG SCHEMA=schemas/fylora.toml
COPY LICENSE /usr/share/doc/permcached/
COPY schemas/fylora.toml schemas/fylora-sharing.toml /etc/permcached/
COPY ${SCHEMA} /etc/permcached/schema.toml
COPY --from=build /build/target/release/permcached /usr/local/bin/permcached

# permcached writes no files, so the root file system may be read-only. By default it listens beyond the container only if
# callers have tokens, or with ALLOW_ANONYMOUS=true.
ENV SCHEMA_FILE=/etc/permcached/schema.toml
USER 65532:65532
EXPOSE 50051
# Asks the server in this container, at PORT, as an orchestrator with gRPC probes would.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["permcached", "health"]
ENTRYPOINT ["permcached"]
CMD ["serve"]
