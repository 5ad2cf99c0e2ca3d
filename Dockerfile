# The store in a container: built in one image, run in another that holds the binary and nothing that it does not need.
#   docker build --tag tandem .
#   docker run --read-only --volume data:/var/lib/tandem --publish 127.0.0.1:16700-16702:16700-16702 tandem

# Where the program comes from: what follows builds it. An image that holds /tandem may stand in for it, so that the rest can be
# tried without compiling: `--build-arg PROGRAM=IMAGE`.
ARG PROGRAM=build

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
# Named by the manifest, which is refused without them.
COPY benches benches
# Crates and what was compiled of them stay in caches, so that a change of ours compiles ours alone. Debug sections are
# dropped, names stay: a backtrace still says where.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release \
    && strip --strip-debug -o /tandem target/release/tandem

FROM ${PROGRAM} AS program

FROM debian:12.12-slim
LABEL org.opencontainers.image.title="Tandem" \
      org.opencontainers.image.description="An in-memory, durable key-value store with two doors, gRPC and REST, over one engine" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
# The one place that is written to: everything else may be read-only.
RUN install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/tandem
COPY --from=program /tandem /usr/local/bin/tandem
# A container is reached from outside itself: it listens on every address of its own, and what is published decides.
ENV TANDEM__SERVER__DATA_DIR=/var/lib/tandem \
    TANDEM__SERVER__HTTP_ADDRESS=0.0.0.0:16700 \
    TANDEM__SERVER__GRPC_ADDRESS=0.0.0.0:16701 \
    TANDEM__SERVER__OPS_ADDRESS=0.0.0.0:16702
USER 10001:10001
WORKDIR /var/lib/tandem
VOLUME /var/lib/tandem
EXPOSE 16700 16701 16702
# SIGTERM drains: give a stop longer than limits.drain_timeout (20 s).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30m --retries=3 CMD ["tandem", "healthcheck"]
ENTRYPOINT ["tandem"]
