# tests/fs/crash.sh for longer: ROUNDS kills of the daemon (500 unless told).
export ROUNDS=${ROUNDS:-500}
exec bash "$(dirname "$0")/../fs/crash.sh" "$@"
