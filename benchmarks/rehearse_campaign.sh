#!/bin/sh
# The campaign of docs/scaling.md from end to end on a CPU, with the same commands and tiny numbers: pack data, unpack it "there",
# train within a time that is too short, export, import "at home", and go on to the reports.
#
# usage: benchmarks/rehearse_campaign.sh [DATA_ROOT]   (with cifar-10-batches-py below DATA_ROOT; without, scikit-learn's digits
#        are trained on, and packing is left out)
# PYTHON names the interpreter, CUT the minutes after which training is cut off.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
data=$(cd "${1:-$checkout/data}" 2>/dev/null && pwd || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$checkout" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

say() { printf '\n== %s\n' "$*"; }
tdc() { "${PYTHON:-python3}" -m tdcompress "$@"; }

mkdir -p "$work/there" "$work/home"
if [ -n "$data" ] && [ -d "$data/cifar-10-batches-py" ]; then
    say "data: packed at home, unpacked there"
    tdc data pack cifar10 --root "$data" --out "$work/packed"
    tdc data unpack "$work/packed" --root "$work/there/data"
    diff -r "$data/cifar-10-batches-py" "$work/there/data/cifar-10-batches-py"
    ln -s "$data" "$work/home/data"
    network='name = "lenet5"' name=cifar10 keys='root = "data"' epochs=1
else
    say "no CIFAR-10 below '${1:-$checkout/data}': digits instead, and nothing is packed"
    network='name = "digits_cnn"' name=digits keys='' epochs=30
fi

for method in none targeted; do
    options=''
    [ "$method" = none ] || options='gamma = 0.75
alpha = 0.66'
    cat >"$work/$method.toml" <<RECIPE
# A rehearsal's recipe: two trainings, too long for the time that they get.
name = "rehearsal-$method"
[data]
name = "$name"
$keys
[model]
$network
[sparsity]
method = "$method"
$options
[train]
epochs = $epochs
batch_size = 256
[prune]
fraction = 0.5
[bench]
budget = "none"
[[sweep.case]]
seed = 1
[[sweep.case]]
seed = 2
RECIPE
done

say "there: trainings alone, cut off"
cd "$work/there"
code=0
tdc run ../none.toml ../targeted.toml --only train --together 2 --minutes "${CUT:-0.5}" || code=$?
[ "$code" = 75 ] || { echo "exit code $code instead of 75: give another CUT than ${CUT:-0.5}" >&2; exit 1; }
tdc artifacts list
tdc artifacts export --recipe ../none.toml --recipe ../targeted.toml --stage train --to "$work/out/campaign" --part-size 16MB --max-parts 8
ls -l "$work/out"

say "home: import, the remaining trainings, prune, export, report"
cd "$work/home"
tdc artifacts import "$work"/out/campaign.*.tdca
tdc artifacts list
tdc run ../none.toml ../targeted.toml --only train --together 2 --minutes 60
tdc run ../none.toml ../targeted.toml
for method in none targeted; do
    tdc verify "artifacts/rehearsal-$method"
done
say "rehearsed: every command did what it is to do"
