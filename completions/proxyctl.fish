# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_proxyctl_global_optspecs
    string join \n h/help V/version
end

function __fish_proxyctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_proxyctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_proxyctl_using_subcommand
    set -l cmd (__fish_proxyctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c proxyctl -n "__fish_proxyctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -s V -l version -d 'Print version'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "validate" -d 'Checks files without running them'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "config" -d 'Shows configurations, and what differs between them'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "routes" -d 'Says where requests go'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "coverage" -d 'Shows what of Envoy\'s v3 API is supported, or what of a file is not'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "explain" -d 'Says what the code of a finding means, and what to do about it'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "status" -d 'Shows what is running: state, configuration, listeners'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "drain" -d 'Drains the listeners of an instance: connections are ended as they become idle'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "stop" -d 'Drains an instance and waits for its end'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "reload" -d 'Has an instance read its configuration again and apply what differs'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "restart" -d 'Replaces an instance by a new process that takes over its connections'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "rollback" -d 'Takes a hot restart back, while the process before lives'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "epochs" -d 'Lists the processes of an instance: which one leads, and which are ending'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "log-level" -d 'Shows log levels, or changes them while the instance runs'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "events" -d 'Shows what has happened to an instance: starts, reloads, hot restarts, drains, panics'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "stats" -d 'Shows stats from shared memory, also those of an instance that hangs or was killed'
complete -c proxyctl -n "__fish_proxyctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and not __fish_seen_subcommand_from config help" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and not __fish_seen_subcommand_from config help" -f -a "config" -d 'Says everything that is wrong with configuration files, by line and column'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and not __fish_seen_subcommand_from config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l deny -d 'Exits with 1 also when there are only warnings' -r -f -a "warnings\t''"
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l profile -d 'What the configuration is for: with edge, every connection manager is held to what untrusted clients call for' -r -f -a "edge\t''"
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l format -d 'How findings are printed' -r -f -a "text\t''
json\t''
sarif\t''"
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l allow-unsupported -d 'What proxyd does not implement is left out, and no error'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l no-files -d 'Does not look at files that the configuration names: they are on another machine'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l env-substitution -d 'Fills in ${VAR} and ${VAR:-default} in values from the environment'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -l json -d 'The same as --format json'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from help" -f -a "config" -d 'Says everything that is wrong with configuration files, by line and column'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand validate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and not __fish_seen_subcommand_from dump diff schema help" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and not __fish_seen_subcommand_from dump diff schema help" -f -a "dump" -d 'Prints what a file says, or what an instance runs with, as JSON without secrets'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and not __fish_seen_subcommand_from dump diff schema help" -f -a "diff" -d 'Says what differs between two files, or between what runs and a file, by resource; exits with 1 if anything does'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and not __fish_seen_subcommand_from dump diff schema help" -f -a "schema" -d 'Prints a JSON Schema of what proxyd can run, for editors and validators'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and not __fish_seen_subcommand_from dump diff schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from dump" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from dump" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from dump" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from dump" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from diff" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from diff" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from diff" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "dump" -d 'Prints what a file says, or what an instance runs with, as JSON without secrets'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "diff" -d 'Says what differs between two files, or between what runs and a file, by resource; exits with 1 if anything does'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Prints a JSON Schema of what proxyd can run, for editors and validators'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and not __fish_seen_subcommand_from explain help" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and not __fish_seen_subcommand_from explain help" -f -a "explain" -d 'Says which virtual host and route take a request, why others do not, and what the request becomes'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and not __fish_seen_subcommand_from explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -s H -l header -d 'A header of the request' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l listener -d 'The listener that the request comes to' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l filter-chain -d 'The filter chain of the listener, by its name, or by its number from 0 with a # ahead of it' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l route-config -d 'The route configuration' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l client -d 'Where the request comes from' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l random -d 'Stands for what is drawn for each request: decides runtime_fraction and weighted_clusters' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l format -d 'How it is printed' -r -f -a "text\t''
json\t''"
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l allow-unsupported -d 'What proxyd does not implement is left out, and no error'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l no-files -d 'Does not look at files that the configuration names: they are on another machine'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -l env-substitution -d 'Fills in ${VAR} and ${VAR:-default} in values from the environment'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from help" -f -a "explain" -d 'Says which virtual host and route take a request, why others do not, and what the request becomes'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand routes; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand coverage" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand coverage" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand explain" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand status" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand status" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand status" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l now -d 'Stops to accept at once, instead of after the drain time'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l keep-listening -d 'Drains connections, but never stops to accept'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -l inbound-only -d 'Only listeners whose traffic direction is inbound'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand drain" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -l timeout -d 'How long to wait for the end: 500ms, 30s or 2m' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -l now -d 'Ends it at once, with its connections'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stop" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -l timeout -d 'How long to wait: 500ms, 30s or 2m' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -l wait -d 'Waits until connections of what was replaced or removed have ended'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l binary -d 'The new process\'s program [default: that of the running process, as its file is now]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -s c -l config-path -d 'The new process\'s configuration file [default: that of the running process]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l timeout -d 'How long to wait, also for another restart to end: 500ms, 30s or 2m' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l hot -d 'Without losing a connection; there is no other restart here'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l dry-run -d 'Only says whether the new program can run the configuration'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand rollback" -l timeout -d 'How long to wait: 500ms, 30s or 2m' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand rollback" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand rollback" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand rollback" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand epochs" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand epochs" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand epochs" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand epochs" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand log-level" -l component -d 'New levels of single components' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand log-level" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand log-level" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand log-level" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -s n -l last -d 'Only the last so many' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -l shm-dir -d 'Directory of the counters, in memory' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -s f -l follow -d 'Goes on with what happens, until the instance has ended'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l watch -d 'Shows them again and again, every so many seconds (1 if not said)' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l shm-dir -d 'Directory of the counters, in memory' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l base-id -d 'The instance with this base-id [default: the only one that runs]' -r
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l usedonly -d 'Only stats that are not 0 or empty'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l rates -d 'Shows also by how much a second stats change; without --watch, during one second'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -l json -d 'Prints JSON'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "validate" -d 'Checks files without running them'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "config" -d 'Shows configurations, and what differs between them'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "routes" -d 'Says where requests go'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "coverage" -d 'Shows what of Envoy\'s v3 API is supported, or what of a file is not'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "explain" -d 'Says what the code of a finding means, and what to do about it'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "status" -d 'Shows what is running: state, configuration, listeners'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "drain" -d 'Drains the listeners of an instance: connections are ended as they become idle'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "stop" -d 'Drains an instance and waits for its end'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "reload" -d 'Has an instance read its configuration again and apply what differs'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "restart" -d 'Replaces an instance by a new process that takes over its connections'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "rollback" -d 'Takes a hot restart back, while the process before lives'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "epochs" -d 'Lists the processes of an instance: which one leads, and which are ending'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "log-level" -d 'Shows log levels, or changes them while the instance runs'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "events" -d 'Shows what has happened to an instance: starts, reloads, hot restarts, drains, panics'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "stats" -d 'Shows stats from shared memory, also those of an instance that hangs or was killed'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and not __fish_seen_subcommand_from validate config routes coverage explain status drain stop reload restart rollback epochs log-level events stats help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and __fish_seen_subcommand_from validate" -f -a "config" -d 'Says everything that is wrong with configuration files, by line and column'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "dump" -d 'Prints what a file says, or what an instance runs with, as JSON without secrets'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "diff" -d 'Says what differs between two files, or between what runs and a file, by resource; exits with 1 if anything does'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'Prints a JSON Schema of what proxyd can run, for editors and validators'
complete -c proxyctl -n "__fish_proxyctl_using_subcommand help; and __fish_seen_subcommand_from routes" -f -a "explain" -d 'Says which virtual host and route take a request, why others do not, and what the request becomes'
