"""A camera for the tests: GStreamer's RTSP server. Run it by the system's Python, which has the bindings.

    rtsp_server.py PORT CLIP.ts WIDTH HEIGHT [CERTIFICATE KEY]     (with a certificate: rtsps://)
    rtsp_server.py PORT --parts FIRST.png SECOND.png               (/parts alone)

/clip     the clip, in a loop          /still    the same image forever
/ball     a moving ball of this size   /audio    no video
/jpeg     the still as a series of JPEG images
/raw      the still without compression, 4:2:0
/parts    one of two images, 320x240, the first one until the second is wanted
`size WIDTH HEIGHT` on standard input changes the size of /ball while it is streaming, `part 0` and `part 1` the image
of /parts.
"""

import sys

import gi  # pyright: ignore[reportMissingImports]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402  # pyright: ignore[reportMissingImports]

ENCODER = "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96"
PIPELINES = {
    "/clip": "multifilesrc location={clip} loop=true ! tsparse set-timestamps=true ! tsdemux ! h264parse ! avdec_h264 "
    "! videorate ! video/x-raw,framerate=30/1 ! " + ENCODER,
    "/ball": "videotestsrc is-live=true pattern=ball ! capsfilter name=size "
    "caps=video/x-raw,width={width},height={height},framerate=30/1 ! " + ENCODER,
    "/still": "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,width=320,height=240,framerate=30/1 ! "
    + ENCODER,
    "/jpeg": "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 "
    "! jpegenc ! rtpjpegpay name=pay0 pt=26",
    "/raw": "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 "
    "! rtpvrawpay name=pay0 pt=96",
    "/audio": "audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay0 pt=0",
}
PART = "filesrc location={} ! pngdec ! imagefreeze is-live=true ! videoconvert ! "
PART += "video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! shown.sink_{} "
PARTS = PART.format("{first}", 0) + PART.format("{second}", 1) + "input-selector name=shown ! " + ENCODER
sizes, selectors = [], []


def remember(_factory, media):
    for name, kept in (("size", sizes), ("shown", selectors)):
        if found := media.get_element().get_by_name(name):
            kept.append(found)


def command(channel, _condition):
    words = channel.readline().split()
    if not words:
        return False
    if words[0] == "part":
        for each in selectors:
            each.set_property("active-pad", each.get_static_pad(f"sink_{words[1]}"))
        return True
    width, height = words[1:]
    caps = Gst.Caps.from_string(f"video/x-raw,width={width},height={height},framerate=30/1")
    for each in sizes:
        each.set_property("caps", caps)
    return True


def use_tls(server, factories, certificate, key):
    """TLS comes with an authentication; the token lets everybody in."""
    auth, token = GstRtspServer.RTSPAuth.new(), GstRtspServer.RTSPToken.new()
    auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(certificate, key))
    token.set_string("media.factory.role", "anyone")
    auth.set_default_token(token)
    rights = "anyone, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    for factory in factories:
        factory.add_role_from_structure(Gst.Structure.new_from_string(rights))
    server.set_auth(auth)


def main(port, clip, width, height, *certificate_and_key):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factories = []
    has_parts = clip == "--parts"  # then the two images are in place of a size
    for place, pipeline in {"/parts": PARTS}.items() if has_parts else PIPELINES.items():
        factory = GstRtspServer.RTSPMediaFactory()
        values = {"first": width, "second": height} if has_parts else {"clip": clip, "width": width, "height": height}
        factory.set_launch(f"( {pipeline.format(**values)} )")
        factory.set_shared(True)
        factory.connect("media-configure", remember)
        server.get_mount_points().add_factory(place, factory)
        factories.append(factory)
    if certificate_and_key:
        use_tls(server, factories, *certificate_and_key)
    server.attach(None)
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN, command)
    print("ready", flush=True)  # noqa: T201
    GLib.MainLoop().run()


main(*sys.argv[1:])
