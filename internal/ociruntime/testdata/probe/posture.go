package main

func posture([]string) {}
