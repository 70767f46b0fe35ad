#!/usr/bin/env bash
# The first minutes on other people's machines, tried for real: `bash tests/first_minutes.sh [FOLDER]`, by hand.
# Clones this repository into FOLDER (a temporary one by default) as zip, shallow clone, worktree and so on; needs git,
# uv with a filled cache (environments are then links) and the registry; about ten minutes on two cores.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd -P)
place=${1:-$(mktemp -d)}
mkdir -p "$place" && cd "$place" && place=$PWD || exit 1
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
failed=0

try() {  # try WHAT PATTERN COMMAND...: the command's output has a line like the pattern, and no traceback
  local what=$1 pattern=$2; shift 2
  local said; said=$("$@" 2>&1)
  if grep -qE -- "$pattern" <<<"$said" && ! grep -q "^Traceback" <<<"$said"; then echo "ok      $what"
  else echo "FAILED  $what"; tail -5 <<<"$said" | sed 's/^/        /'; failed=1; fi
}
clean() { try "$1: git is clean afterwards" '^clean$' bash -c '[ -z "$(git status --porcelain)" ] && echo clean'; }
green='reports are (not )?those of this code'
needed='[0-9]+ headline numbers'

git clone -q "$here" clone && cd clone || exit 1
try "make env on a fresh clone" 'vars-core' make env
try "make env again does nothing" '^$' bash -c 'make env; echo'
try "make check" "$green" make check
try "make compare" "$needed" make compare
try "make lint" 'already formatted' make lint
try "dvc, not activated, on a PATH without its Python" 'is data/prepared|Running stage' \
  env -i HOME="$HOME" PATH=/usr/bin:/bin .venv/bin/dvc repro data
try "no stage is run twice" "didn't change, skipping" env -i HOME="$HOME" PATH=/usr/bin:/bin .venv/bin/dvc repro data
for locale in LANG=C LC_ALL=C "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0" LC_ALL=POSIX; do
  try "$locale: make check" "$green" env $locale make check
  try "$locale: vars check" "$green" env $locale .venv/bin/vars check
  try "$locale: a stage" '01_data: ' env $locale .venv/bin/vars stage 01_data
done
try "umask 077: a stage" '01_data: ' bash -c 'umask 077; .venv/bin/vars stage 01_data'
mkdir -p "$place/home" && chmod 555 "$place/home"
for home in "$place/home" /nonexistent; do
  try "HOME=$home: make check" "$green" env HOME="$home" make check
  try "HOME=$home: a stage" '01_data: ' env HOME="$home" .venv/bin/vars stage 01_data
done
no_network=(env http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 ALL_PROXY=http://127.0.0.1:9)
try "no network: make check" "$green" "${no_network[@]}" make check
echo "# changed" >> requirements-test.txt
try "no network, a requirements file that changed: make check" "$green" "${no_network[@]}" make check
git checkout -q requirements-test.txt && make env >/dev/null 2>&1
.venv/bin/dvc repro -f data >/dev/null 2>&1 & running=$!
sleep 4; kill -9 $running
try "after kill -9 of dvc: dvc repro" 'Running stage|up to date|skipping' .venv/bin/dvc repro data
echo "a note" >> TEACHING.md; echo "a file" > untracked
try "a dirty tree: dvc exp run" 'Ran experiment|Reproduced experiment' .venv/bin/dvc exp run -f -s -S seed=1 data
git checkout -q . && rm -f untracked
for profile in smoke laptop; do try "make profile P=$profile" 'cp ' make profile P=$profile; done
cd "$place"

git -C "$here" archive --prefix=zip/ HEAD | tar x && cd zip
try "a zip: make env" 'vars-core' make env
try "a zip: make check names the cure" 'git init' make check
try "a zip: make repro names the cure" 'git init' make repro
try "a zip: make lint" 'already formatted' make lint
try "a zip: make compare names another way" '--against' make compare
.venv/bin/python -m dvc config --local core.no_scm true
try "a zip with DVC's no_scm" "$green" make check
rm .dvc/config.local; git init -q
try "a zip after git init" "$green" make check
cd "$place"

git clone -q --depth 1 "file://$here" shallow && mv zip/.venv shallow/ && cd shallow
try "a shallow clone, an environment that was moved" 'vars-core' make env
try "a shallow clone: make check" "$green" make check
try "a shallow clone: make compare" "$needed" make compare
cd "$place"
git -C clone worktree add -q --detach "$place/work tree" && mv shallow/.venv "work tree/" && cd "work tree"
make env >/dev/null 2>&1
try "a worktree: make check" "$green" make check
try "a worktree: dvc repro" '01_data: ' .venv/bin/dvc repro -f data
cd "$place"

mkdir -p none && for tool in bash make sed grep cat cut ls cksum find mkdir rm git seq sleep env; do ln -sf "$(command -v $tool)" none/; done
git clone -q "$here" bare && cd bare
try "no Python at all" 'Python 3.11, 3.12 or 3.13 is needed' env PATH="$place/none" make env
for other in python3.10 python3.9 python3.14; do
  $other --version >/dev/null 2>&1 || continue
  ln -s "$($other -c 'import sys; print(sys.executable)')" "$place/none/python3"
  try "$other only" 'Python 3.11, 3.12 or 3.13 is needed' env PATH="$place/none" make env
  break
done
ln -s ../clone/.venv .venv
try "a linked .venv" 'symbolic link' make test
try "... and its target is whole" 'Python 3.1' ../clone/.venv/bin/python --version
rm .venv && mkdir .venv && touch .venv/mine
try "somebody else's .venv" 'not made by' make test
try "... is left alone" '^.venv/mine$' ls .venv/mine
cd "$place/clone"
rm "$place/none/git"
try "no git: make check" "$green" env PATH="$place/none" make check
try "no git: make compare" '--against' env PATH="$place/none" make compare
cd "$place"

odd="it's \"q\" \$nope #;&%20 é目 \`id\` [x]*?!~="
mv bare "$odd" && rm -r "$odd/.venv" && mv "work tree/.venv" "$odd/" && cd "$odd"
make env >/dev/null 2>&1
try "an odd path: make check" "$green" make check
try "an odd path: make lint" 'already formatted' make lint
try "an odd path: make student" '07_adaptive' make student
try "an odd path: make compare" "$needed" make compare
clean "an odd path"
try "an odd path: a stage in DVC" '01_data: ' .venv/bin/dvc repro -f data
exit $failed
