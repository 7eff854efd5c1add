package cli

import (
	"fmt"
	"iter"
	"strings"
)

// manyExamples are what people do with commands as a rule: a line for each, with the command whose help shows it and what it is for.
const manyExamples = `run: wherry run --rm -it debian:12 bash  # a shell, gone with its end
run: wherry run -d --name web -p 8080:80 nginx:1  # a server, at port 8080
run: wherry run --rm -v .:/src -w /src node:24 npm test  # with files of this folder
run: wherry run -d -v data:/var/lib/x -e KEY=value db:1  # with data that stays
run: wherry run -d --restart unless-stopped -m 512m app:1  # again after each end
create: wherry create --name job debian:12 date  # made, not started
create: wherry start -a job  # runs it, and shows what it prints
exec: wherry exec -it web sh  # a shell in the container web
exec: wherry exec web cat /etc/hosts  # one command
exec: wherry exec -u root -w /tmp -e A=1 web env  # as a user, in a folder, with a variable
exec: wherry exec -i db psql < dump.sql  # with a file as its input
build: wherry build -t app:1 .  # the Dockerfile of this folder
build: wherry build -f ci/Dockerfile --target test .  # another file, up to a stage
build: wherry build --build-arg VERSION=2 -t app:2 .  # with a value for ARG VERSION
build: wherry build -o out .  # files in place of an image
ps: wherry ps -a  # those that have ended, too
ps: wherry ps -aq --filter status=exited  # ids of those that have ended
ps: wherry ps --format '{{.Names}} {{.Status}}'  # columns of one's own
logs: wherry logs -f --tail 10 web  # the last ten lines, and what comes
logs: wherry logs --since 5m -t web  # of five minutes, with times
cp: wherry cp web:/etc/nginx/nginx.conf .  # out of a container
cp: wherry cp site/. web:/usr/share/nginx/html  # what is in a folder, into one
stop: wherry stop web  # SIGTERM, and after ten seconds SIGKILL
stop: wherry stop -t 60 db  # with a minute's time
start: wherry start web  # in the background
start: wherry start -ai box  # joined to this terminal
restart: wherry restart web  # stop and start
kill: wherry kill web  # SIGKILL
kill: wherry kill -s HUP web  # another signal
rm: wherry rm web  # one that has ended
rm: wherry rm -f web  # also while it runs
rm: wherry rm -v db  # with its volumes that have no name
why: wherry why web  # what ended it, and what to do
why: wherry why --all web  # its earlier ends, too
attach: wherry attach web  # ctrl-p ctrl-q leaves it running
wait: wherry wait job  # its exit status
wait: wherry wait --condition healthy db  # until its health check is content
update: wherry update -m 512m --cpus 1.5 web  # limits, while it runs
update: wherry update --restart always web  # and what happens after its end
update: wherry update --publish 8443:443 web  # a port more
replace: wherry replace web nginx:2  # the same container of a newer image
inspect: wherry inspect web  # everything, as JSON
inspect: wherry inspect -f '{{.State.Status}}' web  # one value
inspect: wherry inspect -f '{{json .Mounts}}' web  # a part, as JSON
stats: wherry stats  # what all use, until Ctrl-C
stats: wherry stats --no-stream web  # once
top: wherry top web  # as ps -ef shows them
top: wherry top web -o pid,comm  # other columns
port: wherry port web  # all
port: wherry port web 80  # where its port 80 is reached
ports: wherry ports  # of all containers
ports: wherry ports explain 8080  # who listens there, and who reaches it
diff: wherry diff web  # A: added, C: changed, D: deleted
commit: wherry commit web web:mine  # an image of what it has become
export: wherry export -o files.tar web  # its files, without volumes
import: wherry import files.tar base:1  # an image of one layer
images: wherry images  # those with names
images: wherry images -q --filter dangling=true  # ids of those without
images: wherry images --format '{{.Repository}}:{{.Tag}}'  # columns of one's own
pull: wherry pull debian:12  # from Docker Hub
pull: wherry pull registry.example.org/team/app:1  # from another registry
pull: wherry pull --platform linux/arm64 debian:12  # for another machine
push: wherry tag app:1 registry.example.org/team/app:1  # its name at the registry, first
push: wherry push registry.example.org/team/app:1  # then to it
login: wherry login registry.example.org  # asks for name and password
login: wherry login -u me --password-stdin registry.example.org < token  # as scripts do
tag: wherry tag app:1 app:stable  # both names mean the same image
rmi: wherry rmi app:1  # takes the name away, and with the last one the image
save: wherry save -o app.tar app:1  # to take it elsewhere
load: wherry load -i app.tar  # what save has written
load: wherry load < app.tar  # the same from the input
events: wherry events --since 10m --until 0s  # of the last ten minutes
events: wherry events --filter event=die  # ends of containers, as they come
history: wherry history --no-trunc app:1  # which step made which layer
audit: wherry audit --since 1h --user alice  # what alice asked for in the last hour
lock: wherry lock  # for the files of this folder
lock: wherry lock --update debian:12  # what its tag means by now
network create: wherry network create app  # containers on it know each other by name
network create: wherry run -d --network app --name db redis:7  # and this one is called db
network connect: wherry network connect app web  # one more network for web
volume create: wherry volume create data  # for run -v data:/PATH
secret create: wherry secret create db-password password.txt  # for run --secret db-password
context create: wherry context create lab --docker host=ssh://me@lab  # the engine of another machine
context create: wherry context use lab  # from now on
system df: wherry system df -v  # each image, container and volume
system prune: wherry system prune -f  # what nothing uses, without a question
system prune: wherry system prune -a --volumes  # unused images and volumes, too
builder prune: wherry builder prune --filter until=24h  # what was not used for a day`

// examples are a command's lines, each with what it is for.
func examples(name string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for line := range strings.Lines(manyExamples) {
			of, rest, _ := strings.Cut(line, ": ")
			typed, what, _ := strings.Cut(strings.TrimSpace(rest), "  # ")
			if of == name && !yield(typed, what) {
				return
			}
		}
	}
}

// exampleText lists a command's examples, with what they are for below one another.
func exampleText(name string) string {
	widest := 0
	for typed := range examples(name) {
		widest = max(widest, len(typed))
	}
	var b strings.Builder
	for typed, what := range examples(name) {
		fmt.Fprintf(&b, "  %-*s  # %s\n", widest, typed, what)
	}
	return b.String()
}
