/**
 * What runs on a host that has no nixdeploy to make a NixOS system live there, and to go back: `sh` and what every NixOS
 * has. All that varies is in `$1`, `$2`, … or in the files of a folder in /run:
 *
 *   method new old profile before window policy limit    what is wanted, as BEGIN was told
 *   keeper log lock begun       the script itself, its output, held while it runs, there once it has touched something
 *   armed/ → confirmed/ | late/ | unwanted/              renamed by whoever is first: the visitor or the keeper
 *   code commit back end        how `test`, profile and boot loader, and the way back ended; there: it is all over
 *
 * The keeper needs neither us nor the session in which it began: under systemd it is a unit, which is started again when it
 * is killed; elsewhere a process of its own session, which every look of ours starts again. A second one ends at once.
 */

/** $1 the folder. Its own death is answered by going back, or by going on with what was proved. */
export const KEEPER = `run=$1
exec >> "$run/log" 2>&1 9> "$run/lock"
flock -n 9 || exit 0
[ -e "$run/end" ] && exit 0
get() { cat "$run/$1"; }
put() { printf '%s\\n' "$2" > "$run/$1.new" && mv "$run/$1.new" "$run/$1"; }
method=$(get method) new=$(get new) old=$(get old) profile=$(get profile) before=$(get before) limit=$(get limit)
# The way back must not need what the new system brings.
PATH="$old/sw/bin:$PATH"
switch() { timeout -k 10 "$limit" "$1/bin/switch-to-configuration" "$2" 9>&-; }
# What a keeper that was killed has begun may still hold the lock.
in_turn() {
  tries=$limit
  while :; do
    result=0
    switch "$1" "$2" || result=$?
    if [ "$result" != 11 ] || [ "$tries" -le 0 ]; then return "$result"; fi
    sleep 1
    tries=$((tries - 1))
  done
}
finish() { put end "$1"; exit 0; }
try_it() {
  code=0 wanted=no
  switch "$new" test || code=$?
  case $code in 0) wanted=yes ;; 4) [ "$(get policy)" = keep ] && wanted=yes ;; esac
  [ $wanted = yes ] || mv "$run/armed" "$run/unwanted"
  put code "$code"
  window=$(get window)
  while [ "$window" -gt 0 ] && [ -d "$run/armed" ]; do sleep 1; window=$((window - 1)); done
}
make_default() {
  code=0
  mkdir -p "$(dirname "$profile")"
  nix-env --profile "$profile" --set "$new" 9>&- && in_turn "$new" boot || code=$?
  put commit "$code"
}
undo_default() {
  back=0
  if [ -n "$before" ]; then
    nix-env --profile "$profile" --set "$before" 9>&- && in_turn "$before" boot || back=$?
  else
    rm -f "$(dirname "$profile")/$(readlink "$profile")" "$profile"
    if [ -n "$old" ]; then in_turn "$old" boot || back=$?; fi
  fi
  if [ "$method" = switch ]; then in_turn "$old" test || back=$?; fi
  put back "$back"
}
if [ "$method" != boot ]; then
  if ! [ -e "$run/begun" ]; then
    : > "$run/begun"
    try_it
  fi
  [ -d "$run/confirmed" ] || mv "$run/armed" "$run/late" 2>/dev/null
  if ! [ -d "$run/confirmed" ]; then
    if [ "$(get code 2>/dev/null)" != 11 ]; then
      back=0
      in_turn "$old" test || back=$?
      put back "$back"
    fi
    finish undone
  fi
  [ "$method" = switch ] || finish live
fi
: > "$run/begun"
[ -e "$run/commit" ] || make_default
[ "$(get commit)" = 0 ] || undo_default
finish default
`;

/** In a script with $run: starts the keeper, unless one runs. What it needs of the environment goes along. */
const ENSURE_KEEPER = `keep() {
  flock -n "$run/lock" true || return 0
  if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null 2>&1; then
    unit=$(basename "$run" | tr . -)
    case $(systemctl is-active "$unit.service") in active|activating|deactivating) return 0 ;; esac
    systemctl reset-failed "$unit.service" 2>/dev/null || :
    set --
    for name in PATH HOME LOCALE_ARCHIVE NIX_CONF_DIR NIX_REMOTE NIX_STATE_DIR; do
      if printenv "$name" >/dev/null; then set -- "$@" "--setenv=$name=$(printenv "$name")"; fi
    done
    if systemd-run --quiet --collect --unit="$unit" --service-type=exec --property=Restart=on-failure --property=RestartSec=1 --property=StartLimitIntervalSec=0 --property=KillMode=mixed "$@" "$(command -v sh)" "$run/keeper" "$run" >&2; then
      return 0
    fi
  fi
  setsid sh "$run/keeper" "$run" </dev/null >/dev/null 2>&1 &
}
`;

/** In a script with $run. */
const TELL = `tell() {
  for name in code commit back end; do
    if [ -e "$run/$name" ]; then printf 'nixdeploy-%s=%s\\n' "$name" "$(cat "$run/$name")"; fi
  done
  if [ -d "$run/confirmed" ]; then echo nixdeploy-visit=confirmed; fi
}
`;

/**
 * $1 switch, test or boot; $2 the new system; $3 the profile, absolute; $4 the window and $5 the time limit of each step, in
 * seconds; $6 the policy; $7 KEEPER. Says where the folder is, how the test ended, and in the end everything.
 */
export const BEGIN_SCRIPT = `set -eu
${ENSURE_KEEPER}${TELL}for tool in flock timeout setsid nix-env nix-store; do
  command -v "$tool" >/dev/null 2>&1 || { echo "there is no $tool" >&2; exit 1; }
done
old= before=
if [ -e /run/current-system ]; then old=$(readlink -f /run/current-system); fi
if [ -e "$3" ]; then before=$(readlink -f "$3"); fi
find /run -maxdepth 1 -name 'nixdeploy-copy.*' -mtime +6 -exec rm -rf -- {} + 2>/dev/null || :
run=$(mktemp -d /run/nixdeploy-copy.XXXXXX)
trap '[ -e "$run/keeper" ] || rm -rf -- "$run"' EXIT
for path in "$2" "$old" "$before"; do
  # What we may go back to is kept from the garbage collector; the links' folder is gone at the next boot.
  if [ -n "$path" ]; then nix-store --realise "$path" --add-root "$run/root-$(basename "$path")" --indirect >/dev/null; fi
done
mkdir "$run/armed"
: > "$run/log"
put() { printf '%s\\n' "$2" > "$run/$1"; }
put method "$1"; put new "$2"; put old "$old"; put profile "$3"; put before "$before"; put window "$4"; put limit "$5"; put policy "$6"
printf '%s' "$7" > "$run/keeper.new"
mv "$run/keeper.new" "$run/keeper"
printf 'nixdeploy-run=%s\\n' "$run"
tail -n +1 -f "$run/log" >&2 &
tail=$!
said=
while ! [ -e "$run/end" ] && [ -d "$run" ]; do
  keep
  if [ -z "$said" ] && [ -e "$run/code" ] && [ -d "$run/armed" ]; then said=yes; echo nixdeploy-asks=yes; fi
  sleep 0.5
done
sleep 0.3
kill "$tail" 2>/dev/null || :
tell
`;

/** $1 the folder. By a connection that is made for it: that it is made is what confirms. */
export const VISIT_SCRIPT = `run=$1
${ENSURE_KEEPER}${TELL}if ! [ -d "$run" ]; then
  echo nixdeploy-end=gone
  printf 'nixdeploy-running=%s\\n' "$(readlink -f /run/current-system)"
  exit
fi
if [ -e "$run/code" ]; then mv "$run/armed" "$run/confirmed" 2>/dev/null; fi
[ -e "$run/end" ] || keep
tell
`;

/** $1 the folder. */
export const FORGET_SCRIPT = `case $1 in /run/nixdeploy-copy.*) rm -rf -- "$1" ;; esac`;
