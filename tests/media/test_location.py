"""Tests that secrets in URLs are masked, on the forms that services use; and of URL checks."""

import pytest

from vsr.errors import UsageError
from vsr.media.location import (
    check_address,
    check_protocol,
    mask_secrets,
    normal_url,
    url_for_messages,
)

SECRET = "k3y-5ecret"

FORMS = {
    "rtmp://h/live/k3y-5ecret": "rtmp://h/live/***",
    "rtmp://h:1935/app/instance/k3y-5ecret": "rtmp://h:1935/app/instance/***",
    "rtmps://user:k3y-5ecret@h:443/app/stream": "rtmps://h:443/app/***",
    "rtmp://h/k3y-5ecret": "rtmp://h/***",
    "rtmp://h/live/stream?sign=k3y-5ecret": "rtmp://h/live/***?***",
    "rtmp://h/live/key live=1 pubPasswd=k3y-5ecret": "rtmp://h/live/***",
    "RTMPS://h/app/k3y-5ecret/": "RTMPS://h/app/***",
    "rtsp://admin:k3y-5ecret@10.0.0.7:554/Streaming/Channels/101": "rtsp://10.0.0.7:554/***",
    "rtsp://h/user=admin_password=k3y-5ecret_channel=1.sdp": "rtsp://h/***",
    "rtsps://h:7441/k3y-5ecret?enableSrtp": "rtsps://h:7441/***?***",
    "http://h/hls/k3y-5ecret/index.m3u8": "http://h/***",
    "https://h/k3y-5ecret": "https://h/***",
    "https://cdn.example.org/a/b.m3u8?token=k3y-5ecret&e=17": "https://cdn.example.org/***?***",
    "https://k3y-5ecret@h/a.mp4": "https://h/***",
    "https://h?key=k3y-5ecret": "https://h?***",
    "https://h/a.mp4#k3y-5ecret": "https://h/***?***",
    "http://[2001:db8::1]:8080/k3y-5ecret.ts": "http://[2001:db8::1]:8080/***",
    "srt://h:9000?streamid=publish:k3y-5ecret&passphrase=k3y-5ecret": "srt://h:9000?***",
    "ftp://u:k3y-5ecret@h/film.mkv": "ftp://h/***",
    "udp://@239.0.0.1:1234?localaddr=k3y-5ecret": "udp://239.0.0.1:1234?***",
    "rtmp://u:pa/k3y-5ecret@h/app/x": "rtmp://***",
    "rtmp://u:p@k3y-5ecret@h/app/x": "rtmp://h/app/***",
    "async:http://u:k3y-5ecret@h/live/a.flv": "async:http://h/***",
    "http://u:k3y-5ecret@[bad/x": "http://***",
}


@pytest.mark.parametrize(("url", "name"), FORMS.items())
def test_a_url_is_shown_without_its_secrets(url: str, name: str) -> None:
    assert url_for_messages(url) == name
    assert SECRET in url


@pytest.mark.parametrize("url", FORMS)
def test_foreign_words_do_not_tell_the_secrets(url: str) -> None:
    words = f"HTTP error 403 for '{url}': key {SECRET} refused"
    assert SECRET not in mask_secrets(words, url)
    assert mask_secrets(words, url).startswith("HTTP error 403 for ")


def test_other_urls_in_foreign_words_are_masked_too() -> None:
    words = "Opening 'https://cdn/k3y-5ecret/seg1.ts?t=k3y-5ecret' for reading, next rtmp://h/a/b"
    told = mask_secrets(words, "live.m3u8")
    assert told == "Opening 'https://cdn/***?***' for reading, next rtmp://h/a/***"


@pytest.mark.parametrize("path", ["in.mp4", "file:in.mp4", "12:30.mp4", "C:/film.mkv", "file:///a"])
def test_paths_of_files_are_shown_whole(path: str) -> None:
    assert url_for_messages(path) == path
    assert mask_secrets(f"no such file: {path}", path) == f"no such file: {path}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "rtmp://h:99999/live/s3cret",
            "rtmp://h:99999/live/.*: the port is not a number from 1 to",
        ),
        ("rtmp://h:x/live/s3cret", "the port is not a number"),
        ("srt://h:?streamid=s3cret", "the port is not a number"),
        ("rtsp://me:s3c/ret@h/1", "write / as %2F"),
        ("rtmp://h", "rtmp://h has no stream key: write rtmp://HOST/APPLICATION/KEY"),
        ("rtmps://h:443/", "has no stream key"),
        ("rtmp:///live/s3cret", "has no stream key"),
    ],
)
def test_addresses_that_no_server_has_are_usage_errors(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as told:
        check_address(url)
    assert "s3c" not in str(told.value)


def test_addresses_that_servers_have() -> None:
    for url in (
        "rtmp://h/a", "rtmp://h:1935/a/k", "rtmp://[::1]/a/k", "rtmp://[::1]:1935/a/k?t=1:2",
        "udp://@:5000", "srt://:9000?mode=listener", "rtsp://me:p%2Fw@h:554/1", "in:put.mp4",
    ):  # fmt: skip
        check_address(url)


def test_the_scheme_of_a_url_may_be_in_capitals() -> None:
    assert normal_url("RTMP://Host/App/Key") == "rtmp://Host/App/Key"
    assert normal_url("My Files/A.MP4") == "My Files/A.MP4"
    check_protocol("RTMP://Host/App/Key")
    with pytest.raises(UsageError, match="does not support nothing"):
        check_protocol("nothing://host")
