#!/usr/bin/env bash
# A real SLURM cluster of several nodes on this machine, for the tests: slurmctld, a slurmd for every node, munged and,
# unless left out, slurmdbd with mariadbd. Debian's packages (slurm-wlm munge slurmdbd mariadb-server), root, no systemd.
#
#   cluster.sh up [--root DIR] [--nodes N] [--cpus N] [--memory MIB] [--grace SECONDS]
#                 [--proctrack linuxproc|cgroup] [--preemption user|term] [--gpus N] [--no-accounting]
#   cluster.sh env|status|down|restart-controller [--root DIR]
#   cluster.sh kill-node|start-node NODE [--root DIR]
#   cluster.sh preempt-by user|term [--root DIR]
#
# `up` and `env` print the export line that a client needs. Partitions: main (default), low (pre-empted by main).
# With `--proctrack cgroup` a job's memory is a limit that the kernel keeps; ends with 3 where that cannot be had.
# Everything lies below DIR, except marked lines in /etc/hosts. Only processes that this cluster started are signalled.
set -euo pipefail

die() { echo "cluster.sh: $*" >&2; exit 1; }
cannot() { echo "cluster.sh: $*" >&2; exit 3; }

command=${1:-}; [ $# = 0 ] || shift
root=${PDFORGE_TEST_CLUSTER:-/tmp/pdforge-slurm}; word=
nodes=2 gpus=0 cpus=4 memory=4000 grace=60 proctrack=linuxproc preemption=user accounting=yes
while [ $# -gt 0 ]; do
  case $1 in
    --no-accounting) accounting=no; shift ;;
    --root|--nodes|--gpus|--cpus|--memory|--grace|--proctrack|--preemption)
      [ $# -gt 1 ] || die "$1 wants a value"
      declare "${1#--}=$2"; shift 2 ;;
    -*) die "unknown option $1" ;;
    *) word=$1; shift ;;
  esac
done
case $proctrack in linuxproc|cgroup) ;; *) die "--proctrack linuxproc|cgroup" ;; esac
case $preemption in user|term) ;; *) die "--preemption user|term" ;; esac
root=$(readlink -m -- "$root")
etc=$root/etc run=$root/run log=$root/log
export SLURM_CONF=$etc/slurm.conf
mark="# pdforge test cluster $root."

# ---- processes: a pid means something only together with its start ----------------------------------------------

started() { # pid -> field 22 of its stat, counted after the command's name
  local fields; fields=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  fields=${fields##*) }
  case ${fields%% *} in Z|X) return 1 ;; esac
  awk '{print $20}' <<<"$fields"
}

alive() { # name -> its pid, if the process that was started under that name runs
  local pid since
  read -r pid since 2>/dev/null <"$run/$1.started" || return 1
  [ "$(started "$pid")" = "$since" ] && echo "$pid"
}

launch() { # name command...: without any variable of a job that this script may run in
  local name=$1 variable clean=(); shift
  for variable in $(compgen -e); do
    case $variable in SLURM_CONF) ;; SLURM*|SBATCH_*|SRUN_*) clean+=(-u "$variable") ;; esac
  done
  env "${clean[@]}" setsid "$@" >>"$log/$name.out" 2>&1 </dev/null 9>&- &
  echo "$! $(started $!)" >"$run/$name.started"
}

end() { # name: TERM, and KILL ten seconds later
  local pid i
  pid=$(alive "$1") || return 0
  kill -TERM "$pid" || true
  for ((i = 0; i < 100; i++)); do alive "$1" >/dev/null || return 0; sleep 0.1; done
  kill -KILL "$pid" || true
}

wait_for() { # name command...: three minutes
  local name=$1 i; shift
  for ((i = 0; i < 1800; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  tail -n 5 "$log/$name".* >&2 || true
  die "$name did not come up; see $log"
}

node_processes() { # node: its daemon's descendants inherit the first variable, tasks of jobs have the other two
  { grep -lzxF "PDFORGE_TEST_NODE=$root:$1" /proc/[0-9]*/environ
    grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -lzxF "SLURMD_NODENAME=$1"
  } 2>/dev/null | cut -d/ -f3 | sort -u
}

# ---- configuration -----------------------------------------------------------------------------------------------

free_ports() { # count; below the ephemeral ports
  python3 - "$1" <<'PYTHON'
import random, socket, sys
found = []
for port in random.sample(range(10_000, 19_000), 1_000):
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            continue
    found.append(port)
    if len(found) == int(sys.argv[1]):
        break
print(*found)
PYTHON
}

settings() { echo "nodes=$nodes gpus=$gpus cpus=$cpus memory=$memory grace=$grace proctrack=$proctrack preemption=$preemption accounting=$accounting"; }

configure() {
  local ports i; read -ra ports <<<"$(free_ports $((nodes + 2)))"
  {
    cat <<CONF
ClusterName=pdforge
# cgroups are named by node and job, and may be shared with another cluster of this machine
FirstJobId=$((1 + RANDOM * 1000))
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
# cred_expire is also how long a requeued job waits before it may start again
AuthInfo=socket=$run/munge.socket,cred_expire=5
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd-%n.pid
SlurmctldLogFile=$log/slurmctld.log
SlurmdLogFile=$log/slurmd-%n.log
# who gets a signal other than KILL: linuxproc: a task and all its descendants; cgroup: only the task
ProctrackType=proctrack/$proctrack
TaskPlugin=task/$([ $proctrack = cgroup ] && echo cgroup || echo none)
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
MailProg=/bin/true
# a node that comes back is used again, whatever it was marked down for
ReturnToService=2
KillWait=5
SlurmdTimeout=20
UnkillableStepTimeout=20
MinJobAge=600
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
CONF
    # with it a pre-empted job hears the signal of its --signal option; without it, SLURM's default, only TERM
    echo "$([ $preemption = user ] || echo '#')SlurmctldParameters=preempt_send_user_signal"
    if [ $accounting = yes ]; then
      printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=localhost \
        "AccountingStoragePort=${ports[1]}" "AccountingStoragePass=$run/munge.socket" \
        JobAcctGatherType=jobacct_gather/linux JobAcctGatherFrequency=5
    else
      printf '%s\n' AccountingStorageType=accounting_storage/none JobAcctGatherType=jobacct_gather/none
    fi
    local devices=
    [ "$gpus" = 0 ] || devices=" Gres=gpu:test:$gpus"
    for ((i = 1; i <= nodes; i++)); do
      echo "NodeName=n$i NodeHostname=localhost NodeAddr=127.0.1.$i Port=${ports[i + 1]} CPUs=$cpus RealMemory=$memory$devices"
    done
    local limits="Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP"
    echo "PartitionName=main Default=YES PriorityTier=10 PreemptMode=OFF $limits"
    echo "PartitionName=low Default=NO PriorityTier=1 PreemptMode=REQUEUE GraceTime=$grace $limits"
  } >"$SLURM_CONF"
  # slurmd sets up a cgroup plugin even for linuxproc, and ends where the automatic choice finds none
  printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup CgroupAutomount=no ConstrainRAMSpace=yes >"$etc/cgroup.conf"
  (umask 077 && cat >"$etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=${ports[1]}
SlurmUser=root
LogFile=$log/slurmdbd.log
PidFile=$run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
CONF
  )
  (umask 077 && head -c 128 /dev/urandom >"$etc/munge.key")
  for ((i = 0; i < gpus; i++)); do # devices for the scheduler to count, which nobody can compute on
    touch "$etc/gpu$i"
    echo "Name=gpu Type=test File=$etc/gpu$i"
  done >"$etc/gres.conf"
  settings >"$etc/settings"
}

need_cgroups() { # SLURM 22.05 has a plugin for v2 too, which needs systemd
  local controller folder
  for controller in freezer memory; do
    folder=/sys/fs/cgroup/$controller/pdforge.$$
    mkdir "$folder" 2>/dev/null && rmdir "$folder" || cannot "no cgroup v1 hierarchy to write to: ${folder%/*}"
  done
}

name_hosts() { # number of nodes: MASTER_ADDR=n1 has to resolve. Written in place: it may be a bind mount.
  local keep i
  exec 8>/tmp/.pdforge-hosts.lock; flock -w 30 8 || die "cannot lock the edit of /etc/hosts"
  keep=$(grep -vF "$mark" /etc/hosts || true)
  { printf '%s\n' "$keep"; for ((i = 1; i <= $1; i++)); do echo "127.0.1.$i n$i $mark"; done; } >/etc/hosts
  exec 8>&-
}

# ---- daemons -----------------------------------------------------------------------------------------------------

start_munged() {
  alive munged >/dev/null && return
  rm -f "$run/munge.socket"*
  launch munged munged --foreground --force --num-threads=2 --socket="$run/munge.socket" \
    --key-file="$etc/munge.key" --pid-file="$run/munged.pid" --log-file="$log/munged.log" --seed-file="$run/munged.seed"
  wait_for munged munge --socket="$run/munge.socket" --no-input
}

start_accounting() { # a database to throw away: nothing is synced
  # of its own: a server that starts removes what others have begun in a temporary directory that they share
  mkdir -p "$root/temporary"
  local options=(--no-defaults --user=root --datadir="$root/database" --tmpdir="$root/temporary" --innodb-log-file-size=8M
    --innodb-flush-method=nosync --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --sync-frm=OFF)
  if ! alive mariadbd >/dev/null; then
    [ -d "$root/database" ] || mariadb-install-db "${options[@]}" --auth-root-authentication-method=socket \
      --skip-test-db --skip-name-resolve >"$log/mariadb-install.out" 2>&1 || die "see $log/mariadb-install.out"
    launch mariadbd mariadbd "${options[@]}" --skip-networking --socket="$run/mysql.sock" \
      --pid-file="$run/mariadbd.pid" --innodb-buffer-pool-size=32M --performance-schema=OFF --skip-log-bin
    wait_for mariadbd mariadb --no-defaults --user=root --socket="$run/mysql.sock" -e "select 1"
  fi
  alive slurmdbd >/dev/null || launch slurmdbd env MYSQL_UNIX_PORT="$run/mysql.sock" slurmdbd -D
  wait_for slurmdbd sacctmgr -n -P show cluster
  [ -n "$(sacctmgr -n -P show cluster pdforge format=cluster)" ] || sacctmgr -i add cluster pdforge >"$log/sacctmgr.out"
}

start_controller() {
  alive slurmctld >/dev/null || launch slurmctld slurmctld -D -f "$SLURM_CONF"
  wait_for slurmctld scontrol ping
}

start_node() { # node: with a host name of its own where the machine allows that
  alive "slurmd-$1" >/dev/null && return
  mkdir -p "$root/spool/$1"
  local named=()
  ! unshare --uts true 2>/dev/null || named=(unshare --uts sh -c 'hostname "$0"; exec "$@"' "$1")
  launch "slurmd-$1" env PDFORGE_TEST_NODE="$root:$1" "${named[@]}" slurmd -D -N "$1" -f "$SLURM_CONF"
}

usable() { # node...: all of them answer
  local name
  for name; do sinfo -h -n "$name" -p main -o %T | grep -qxE 'idle|mixed|allocated|completing' || return 1; done
}

all_nodes() { seq -f 'n%.0f' "$nodes"; }

kill_node() {
  local pid round
  for round in 1 2; do # twice: a step manager may have forked in between
    for pid in $(node_processes "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
  done
}

preempt_by() { # user|term: from now on
  local comment=; [ "$1" = user ] || comment='#'
  sed -i "s/^#\?\(SlurmctldParameters=preempt_send\)/$comment\1/" "$SLURM_CONF"
  scontrol reconfigure
}

# ---- commands ----------------------------------------------------------------------------------------------------

known() { [ -f "$etc/settings" ] || die "no cluster in $root"; eval "$(cat "$etc/settings")"; }
lock() { mkdir -p "$root"; exec 9>"$root/lock"; flock -w 120 9 || die "another cluster.sh holds $root/lock"; }

up() {
  [ "$(id -u)" = 0 ] || die "must run as root"
  [ ${#root} -le 70 ] || die "$root is too long for unix sockets"
  [ $proctrack = linuxproc ] || need_cgroups
  lock
  [ ! -f "$etc/settings" ] || [ "$(cat "$etc/settings")" = "$(settings)" ] || (known; down)
  mkdir -p "$etc" "$run" "$log" "$root/state" "$root/spool"
  [ -f "$etc/settings" ] || configure
  name_hosts "$nodes"
  start_munged
  [ $accounting = no ] || start_accounting
  start_controller
  local name
  for name in $(all_nodes); do
    start_node "$name"
    ! sinfo -h -n "$name" -o %T | grep -qE 'drain|down|fail' || scontrol update nodename="$name" state=resume || true
  done
  wait_for slurmd usable $(all_nodes)
  echo "export SLURM_CONF=$SLURM_CONF"
}

down() {
  local name i
  if alive slurmctld >/dev/null; then
    timeout 10 scancel --quiet --full --user=root || true
    for ((i = 0; i < 80; i++)); do [ -n "$(timeout 5 squeue -h -o %i)" ] || break; sleep 0.1; done
  fi
  for name in $(all_nodes); do end "slurmd-$name"; kill_node "$name"; done
  for name in slurmctld slurmdbd mariadbd munged; do end $name; done
  name_hosts 0
  [ $proctrack = linuxproc ] || find /sys/fs/cgroup/*/slurm_n* -depth -type d -exec rmdir {} ';' 2>/dev/null || true
  rm -rf "$etc" "$run" "$root/state" "$root/spool" "$root/database" # the logs stay
}

show() {
  local name code=0 names="munged slurmctld"
  [ $accounting = no ] || names+=" mariadbd slurmdbd"
  for name in $names $(all_nodes | sed 's/^/slurmd-/'); do
    printf '%-12s %s\n' "$name" "$(alive "$name" || echo dead)"
    alive "$name" >/dev/null || code=1
  done
  timeout 10 sinfo -N -o '%N %P %T %E' && timeout 10 squeue -o '%i %P %T %N %r' || code=1
  return $code
}

case $command in
  up) up ;;
  env) known; echo "export SLURM_CONF=$SLURM_CONF" ;;
  status) known; show ;;
  down) [ ! -f "$etc/settings" ] || { known; lock; down; } ;;
  restart-controller) known; lock; end slurmctld; start_controller ;;
  kill-node) known; lock; kill_node "${word:?kill-node NODE}" ;;
  start-node) known; lock; start_node "${word:?start-node NODE}"; wait_for slurmd usable "$word" ;;
  preempt-by) known; lock; preempt_by "${word:?preempt-by user|term}" ;;
  *) sed -n '2,14p' "$0" >&2; exit 2 ;;
esac
