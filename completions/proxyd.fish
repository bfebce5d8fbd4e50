# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_proxyd_global_optspecs
    string join \n h/help V/version
end

function __fish_proxyd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_proxyd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_proxyd_using_subcommand
    set -l cmd (__fish_proxyd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c proxyd -n "__fish_proxyd_needs_command" -s h -l help -d 'Print help'
complete -c proxyd -n "__fish_proxyd_needs_command" -s V -l version -d 'Print version'
complete -c proxyd -n "__fish_proxyd_needs_command" -f -a "run" -d 'Runs a proxy until it is told to end'
complete -c proxyd -n "__fish_proxyd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -s c -l config-path -d 'Configuration file: YAML, JSON or protobuf binary, by its suffix (.yaml, .yml, .json, .pb)' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l config-yaml -d 'Configuration as YAML; merged over that of --config-path' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l from -d 'A proxy with no file: listens here and sends everything to --to' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l to -d 'Where --from sends everything: http://HOST, http://HOST:PORT or tcp://HOST:PORT, several separated by commas' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l mode -d '\'serve\', or \'validate\': says what is wrong with the configuration, and ends' -r -f -a "serve\t''
validate\t''"
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l concurrency -d 'Worker threads [default: the number of cores]' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l base-id -d 'Tells several proxies on one host apart' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l base-id-path -d 'File that gets the base-id' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l shm-dir -d 'Directory of the counters, in memory' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -s l -l log-level -d 'What is logged' -r -f -a "trace\t''
debug\t''
info\t''
warning\t''
error\t''
critical\t''
off\t''"
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l component-log-level -d 'Levels of single components, as \'upstream:debug,dns:trace\'; \'proxyctl log-level\' lists them' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l log-path -d 'Log file; opened again on SIGUSR1 [default: standard error]' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l log-format -d 'How a log line looks: \'text\' or \'json\'' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l service-cluster -d 'Name of the cluster this proxy belongs to (node.cluster)' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l service-node -d 'Name of this proxy (node.id)' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l service-zone -d 'Zone this proxy is in (node.locality.zone)' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l admin-address-path -d 'File that gets the address of the admin port' -r -F
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l admin-allowed-host -d 'Another name by which the admin port may be addressed, besides IP addresses and localhost' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l file-flush-interval-msec -d 'Milliseconds that lines of access logs wait at most before they are written' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l file-flush-min-size-kb -d 'Kilobytes of access log lines that a worker collects before they are written' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l restart-epoch -d 'Which restart of this base-id: 0 is a cold start, \'auto\' takes over from a running instance if there is one, and another number from the instance with the one before' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l confirm-after -d 'Seconds that this process must have served before the one it takes over from lets go' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l parent-shutdown-time-s -d 'Seconds that connections may last in a process that another one has taken over from' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l drain-strategy -d 'How connections that cannot move to the next process are asked to end: spread over the drain time, or all at once' -r -f -a "gradual\t''
immediate\t''"
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l drain-time-s -d 'Seconds that draining listeners give their connections' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l shutdown-time-s -d 'Seconds that connections may last after SIGTERM' -r
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l watch -d 'Reads the configuration again when its file changes, or one that it names, also through a replaced symbolic link'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l print-config -d 'Prints the configuration that is built in, or made from --from and --to, and ends'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l allow-unsupported -d 'Accepts configuration that proxyd does not implement, with a warning, and ignores it'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l env-substitution -d 'Fills in ${VAR} and ${VAR:-default} in values of the configuration from the environment'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l use-dynamic-base-id -d 'Takes a base-id that nobody uses'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l disable-hot-restart -d 'Lets no other process take over from this one'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l skip-hot-restart-on-no-parent -d 'Starts cold when there is no instance to take over from'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l hot-restart-version -d 'Prints the version of the hot restart protocol, and ends'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -l supervise -d 'Starts the proxy as a child, and those that take over from it: for PID 1 of a container, or where one process has to stay. Forwards signals, and ends with the code of the proxy that led last'
complete -c proxyd -n "__fish_proxyd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyd -n "__fish_proxyd_using_subcommand help; and not __fish_seen_subcommand_from run help" -f -a "run" -d 'Runs a proxy until it is told to end'
complete -c proxyd -n "__fish_proxyd_using_subcommand help; and not __fish_seen_subcommand_from run help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
