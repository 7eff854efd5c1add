// Package testcontainers holds tests as a user of testcontainers-go writes them. They are compiled into a program of their own, which the
// end-to-end tests run against an engine at DOCKER_HOST; reaper is the image that testcontainers-go starts beside them.
package testcontainers
